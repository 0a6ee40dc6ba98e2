"""Signatures of model files, in the format of OpenSSF Model Signing: a bundle next to the file, `a.onnx.sig`.

The bundle is JSON with a DSSE envelope. The envelope signs a statement of in-toto, which lists the SHA-256 of the model
file. Only keys are supported, ECDSA on the curves P-256, P-384 and P-521; not certificates or Sigstore identities.
The library `model-signing` verifies these bundles, and bundles that it makes for a single file are accepted here.

This module needs `cryptography`. `models.onnx_file.generator` imports it only if a signature has to be checked.
"""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from models.common.errors import ModelFileError
from models.common.files import signature_path

MAX_BUNDLE_BYTES = 1 << 20
"""Maximum size of a signature. One that signs a single file has about 1,200 bytes."""

_BUNDLE_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
_PAYLOAD_TYPE = "application/vnd.in-toto+json"
_STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_HASHES: dict[str, hashes.HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
"""Hash of the signature, for each curve that is allowed."""
_ALLOWED_KEYS = "only ECDSA keys on the curves P-256, P-384 and P-521 are supported"


class SignatureError(ModelFileError):
    """A signature or a key is missing or invalid, or the signature is not one of this file by this key."""


def load_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Reads a private key for `sign` from a PEM file without a password.

    Raises:
        SignatureError: the file cannot be read, or has no key of a supported kind. The message names the kind.
    """
    pem = _read(path, "private key")
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError:  # the type that `cryptography` chose for a missing password
        raise SignatureError(
            f"{path}: the private key is encrypted; write a copy without a password: "
            f"openssl pkey -in {path.name} -out FILE"
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise SignatureError(f"{path}: is not a private key in PEM format; {_ALLOWED_KEYS}") from None
    _check_kind(path, key.public_key())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def load_public_key(path: Path) -> ec.EllipticCurvePublicKey:
    """Reads a public key for `verify` from a PEM file.

    Raises:
        SignatureError: the file cannot be read, or has no key of a supported kind. The message names the kind.
    """
    pem = _read(path, "public key")
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        found = "is a private key" if b"PRIVATE KEY" in pem else "is not a key in PEM format"
        raise SignatureError(f"{path}: {found}; give the public key, in PEM format") from None
    _check_kind(path, key)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    return key


def sign(file: bytes, name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Signs a model file.

    Args:
        file: content of the file.
        name: name of the file. It is stored for people; a verifier ignores it.
        key: see `load_private_key`.

    Returns:
        The content of the signature, the JSON of a bundle.
    """
    digest = hashlib.sha256(file)
    payload = json.dumps(
        {
            "_type": _STATEMENT_TYPE,
            # The digest of the subject is a hash of the hashes of all files of the model.
            "subject": [{"name": name, "digest": {"sha256": hashlib.sha256(digest.digest()).hexdigest()}}],
            "predicateType": _PREDICATE_TYPE,
            "predicate": {
                "serialization": {"method": "files", "hash_type": "sha256", "allow_symlinks": False},
                # A model that is a single file has the path "." within itself.
                "resources": [{"name": ".", "algorithm": "sha256", "digest": digest.hexdigest()}],
            },
        }
    ).encode()
    signature = key.sign(_signed_bytes(payload), ec.ECDSA(_HASHES[key.curve.name]))
    bundle = {
        "mediaType": _BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": _fingerprint(key.public_key())}, "tlogEntries": []},
        "dsseEnvelope": {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": _PAYLOAD_TYPE,
            "signatures": [{"sig": base64.b64encode(signature).decode(), "keyid": ""}],
        },
    }
    return json.dumps(bundle).encode() + b"\n"


def verify(file: bytes, bundle: bytes, key: ec.EllipticCurvePublicKey) -> None:
    """Checks that a bundle contains a signature of a model file by a key.

    Args:
        file: content of the model file. Nothing in it is parsed.
        bundle: content of the signature.
        key: see `load_public_key`.

    Raises:
        SignatureError: it does not; the message says why.
    """
    payload, signature, hint = _parse_bundle(bundle)
    try:
        key.verify(signature, _signed_bytes(payload), ec.ECDSA(_HASHES[key.curve.name]))
    except InvalidSignature:
        if hint and hint != _fingerprint(key):
            raise SignatureError(
                f"it was made with another key: the SHA-256 of its public key is {hint}, that of the given one "
                f"{_fingerprint(key)}"
            ) from None
        raise SignatureError("it is damaged, or was made with another key") from None
    signed = _signed_sha256(payload)
    if (actual := hashlib.sha256(file).hexdigest()) != signed:
        raise SignatureError(f"it is of another file: it signs the SHA-256 {signed}, and the file has {actual}")


def verify_path(path: Path, file: bytes, public_key: Path) -> None:
    """Checks a model file with the signature next to it.

    Args:
        path: path of the model file.
        file: its content, which the caller has read and goes on to use, so that it cannot change in between.
        public_key: PEM file.

    Raises:
        SignatureError: the file is not signed, the key cannot be used, or see `verify`. The message begins with
            "signature".
    """
    key = load_public_key(public_key)
    bundle = signature_path(path)
    try:
        with bundle.open("rb") as stream:
            content = stream.read(MAX_BUNDLE_BYTES + 1)
    except FileNotFoundError:
        raise SignatureError(f"signature: the file is not signed, there is no {bundle}") from None
    except OSError as error:
        raise SignatureError(f"signature {bundle}: {error.strerror}") from None
    try:
        verify(file, content, key)
    except SignatureError as error:
        raise SignatureError(f"signature {bundle}: {error}") from None


def _parse_bundle(bundle: bytes) -> tuple[bytes, bytes, str | None]:
    """Returns the signed payload, the signature, and the fingerprint of the key (None if the bundle has none)."""
    if len(bundle) > MAX_BUNDLE_BYTES:
        raise SignatureError(f"it is larger than the maximum of {MAX_BUNDLE_BYTES >> 20} MiB")
    try:
        parsed = json.loads(bundle)
        material, envelope = parsed["verificationMaterial"], parsed["dsseEnvelope"]
        types = parsed["mediaType"], envelope["payloadType"]
        payload = base64.b64decode(envelope["payload"], validate=True)
        signatures = [base64.b64decode(entry["sig"], validate=True) for entry in envelope["signatures"]]
        kinds = ", ".join(sorted(material.keys() - {"tlogEntries"})) or "nothing"
        hint = material["publicKey"].get("hint") if "publicKey" in material else None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise SignatureError("it is truncated, or not a bundle of OpenSSF Model Signing") from None
    if types != (_BUNDLE_TYPE, _PAYLOAD_TYPE):
        raise SignatureError(f"its types are {types!r:.200}; they must be {(_BUNDLE_TYPE, _PAYLOAD_TYPE)}")
    if "publicKey" not in material:
        raise SignatureError(f"it was made with {kinds:.100}; only signatures with a key are supported")
    if len(signatures) != 1:
        raise SignatureError(f"it has {len(signatures):,} signatures; exactly one is required")
    return payload, signatures[0], hint if isinstance(hint, str) else None


def _signed_sha256(payload: bytes) -> str:
    """Returns the SHA-256 of the model file that a statement lists. Its signature has been verified."""
    try:
        statement = json.loads(payload)
        kinds = statement["_type"], statement["predicateType"]
        resources: list[dict[str, Any]] = statement["predicate"]["resources"]
        method = statement["predicate"]["serialization"]["method"]
        listed = [(resource["algorithm"], resource["digest"]) for resource in resources]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise SignatureError("its statement is not one of OpenSSF Model Signing 1.0") from None
    if kinds != (_STATEMENT_TYPE, _PREDICATE_TYPE):
        raise SignatureError(f"its statement is of the type {kinds!r:.200}, not {(_STATEMENT_TYPE, _PREDICATE_TYPE)}")
    if len(listed) != 1 or method != "files" or listed[0][0] != "sha256":
        algorithms = ", ".join(sorted({str(algorithm) for algorithm, _ in listed}))
        raise SignatureError(
            f"it signs {len(listed):,} {method!s:.20} by {algorithms:.60}; sign the model file alone, by sha256"
        )
    return str(listed[0][1])


def _signed_bytes(payload: bytes) -> bytes:
    """Returns the bytes that a DSSE envelope signs: its type and its payload, each with its length."""
    return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD_TYPE), _PAYLOAD_TYPE.encode(), len(payload), payload)


def _fingerprint(key: ec.EllipticCurvePublicKey) -> str:
    """Returns the SHA-256 of the public key as PEM, which names the key in a bundle."""
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(pem).hexdigest()


def _check_kind(path: Path, key: object) -> None:
    if isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name in _HASHES:
            return
        kind = f"an ECDSA key on the curve {key.curve.name}"
    else:
        name = type(key).__name__.removesuffix("PublicKey").lstrip("_")
        kind = f"a key of the kind {name}"
    raise SignatureError(f"{path}: is {kind}; {_ALLOWED_KEYS}")


def _read(path: Path, kind: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SignatureError(f"{path}: the {kind} cannot be read: {error.strerror}") from None
