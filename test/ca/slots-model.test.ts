import { test } from 'vitest'
import { tryRotations } from './slots-model.ts'

/** `npm run test:rotation` tries 20,000. */
const seeds = Number(process.env['ROTATION_SEEDS'] ?? 400)
const seed = process.env['ROTATION_SEED'] === undefined ? 20_260_101 : Number(process.env['ROTATION_SEED'])

test(`Q-5 C-28 the invariants of rotation hold under ${seeds} seeds`, { timeout: 600_000 }, () => tryRotations(seeds, seed))
