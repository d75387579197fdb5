/** What runs on a thread of workbenches. */
import { answer } from '../kernel/threads.ts'
import { work } from './workbench-threads.ts'

answer(work)
