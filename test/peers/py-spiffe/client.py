"""A Workload API client on the published py-spiffe library.

It prints one JSON object: what the library made of the answer, or {"error": ..., "code": ...} with exit code 1.
The keys are those of the go-spiffe client beside it, so that tests can hold one against the other.
"""

import argparse
import json
import queue
import sys
import time
from datetime import datetime, timezone

import grpc
from spiffe import JwtSvid, WorkloadApiClient


def main():
    options = parse_arguments()
    if options.command == 'version':
        show({'client': 'py-spiffe'})
        return 0
    try:
        with WorkloadApiClient(options.socket, default_timeout=options.timeout) as client:
            show(COMMANDS[options.command](client, options))
        return 0
    except Exception as error:  # whatever the library raises is what the test wants to see
        show({'error': str(error), 'code': code_of(error)})
        return 1


def parse_arguments():
    parser = argparse.ArgumentParser(prog='client', description=__doc__)
    parser.add_argument('command', choices=['version', *COMMANDS])
    parser.add_argument('--socket', help='unix:///path; SPIFFE_ENDPOINT_SOCKET otherwise')
    parser.add_argument('--timeout', type=float, default=10, help='seconds for each call')
    parser.add_argument('--audience', default='')
    parser.add_argument('--token', default='')
    parser.add_argument('--updates', type=int, default=2, help='of a stream, before the client ends')
    return parser.parse_args()


def x509(client, _options):
    context = client.fetch_x509_context()
    return {
        'svids': [tell_x509(svid, context.x509_bundle_set) for svid in context.x509_svids],
        'bundles': tell_x509_bundles(context.x509_bundle_set),
    }


def jwt(client, options):
    svid = client.fetch_jwt_svid(audience={options.audience})
    bundle = client.fetch_jwt_bundles().get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    # The library does not check signatures of what it fetches: do it here, against the bundles of the same API.
    JwtSvid.parse_and_validate(svid.token, bundle, {options.audience})
    return tell_jwt(svid)


def validate(client, options):
    return tell_jwt(client.validate_jwt_svid(options.token, options.audience))


def bundles(client, _options):
    return {
        'x509': tell_x509_bundles(client.fetch_x509_bundles()),
        'jwt': {bundle.trust_domain.name: sorted(bundle.jwt_authorities) for bundle in client.fetch_jwt_bundles().bundles},
    }


def watch_x509(client, options):
    """Prints each update of one stream as it arrives; the timeout is for all of them."""
    news = queue.Queue()
    handler = client.stream_x509_contexts(news.put, news.put, retry_connect=False)
    end = time.monotonic() + options.timeout
    try:
        for update in range(1, options.updates + 1):
            context = news.get(timeout=max(0, end - time.monotonic()))
            if isinstance(context, Exception):
                raise context
            told = {
                'update': update,
                'svids': [tell_x509(svid, context.x509_bundle_set) for svid in context.x509_svids],
                'bundles': tell_x509_bundles(context.x509_bundle_set),
            }
            if update < options.updates:
                show(told)
        return told
    finally:
        handler.cancel()


COMMANDS = {'x509': x509, 'jwt': jwt, 'validate': validate, 'bundles': bundles, 'watch-x509': watch_x509}


def tell_x509(svid, bundle_set):
    verify(svid, bundle_set)
    return {
        'id': str(svid.spiffe_id),
        'serial': format(svid.leaf.serial_number, 'x'),
        'notBefore': timestamp(svid.leaf.not_valid_before_utc),
        'notAfter': timestamp(svid.leaf.not_valid_after_utc),
        'chain': len(svid.cert_chain),
    }


def verify(svid, bundle_set):
    """Each certificate of the chain is signed by the next, the last by an authority of the bundle, and the key fits the leaf."""
    bundle = bundle_set.get_bundle_for_trust_domain(svid.spiffe_id.trust_domain)
    if bundle is None:
        raise ValueError(f'no bundle for {svid.spiffe_id.trust_domain}')
    if svid.private_key.public_key() != svid.leaf.public_key():
        raise ValueError('the private key is not the one of the leaf')
    now = datetime.now(timezone.utc)
    for certificate in svid.cert_chain:
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise ValueError(f'{certificate.subject.rfc4514_string()} is not valid now')
    for certificate, issuer in zip(svid.cert_chain, svid.cert_chain[1:]):
        certificate.verify_directly_issued_by(issuer)
    if not any(issued_by(svid.cert_chain[-1], authority) for authority in bundle.x509_authorities):
        raise ValueError('no authority of the bundle signed the chain')


def issued_by(certificate, authority):
    try:
        certificate.verify_directly_issued_by(authority)
        return True
    except Exception:  # wrong name, wrong key type or wrong signature: not this one
        return False


def tell_x509_bundles(bundle_set):
    return {bundle.trust_domain.name: len(bundle.x509_authorities) for bundle in bundle_set.bundles}


def tell_jwt(svid):
    return {
        'id': str(svid.spiffe_id),
        'audience': sorted(svid.audience),
        'expiry': timestamp(datetime.fromtimestamp(svid.expiry, timezone.utc)),
        'token': svid.token,
    }


def code_of(error):
    """The gRPC status behind an error, written as Go writes it."""
    while error is not None:
        if isinstance(error, grpc.Call):
            return ''.join(word.capitalize() for word in error.code().name.split('_'))
        error = error.__cause__
    return ''


def timestamp(moment):
    return moment.strftime('%Y-%m-%dT%H:%M:%SZ')


def show(value):
    print(json.dumps(value), flush=True)


if __name__ == '__main__':
    sys.exit(main())
