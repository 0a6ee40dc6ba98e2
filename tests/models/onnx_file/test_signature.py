"""Signatures of model files: what is accepted, what is refused, and the library of OpenSSF as the reference."""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models.common.errors import ModelFileError
from models.common.files import signature_path
from models.onnx_file.generator import Generator
from models.onnx_file.signature import SignatureError, load_private_key, load_public_key, sign, verify
from tests.models.keys import CURVES, write_keys


@pytest.fixture
def signed(files, tmp_path) -> tuple[Path, Path]:
    """A signed model file and the public key."""
    file = Path(shutil.copy(files["conditional"], tmp_path / "a.onnx"))
    private, public = write_keys(tmp_path)
    signature_path(file).write_bytes(sign(file.read_bytes(), file.name, load_private_key(private)))
    return file, public


def refusal(file: Path, public: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        Generator.open(file, public_key=public)
    return str(caught.value)


@pytest.mark.parametrize("curve", CURVES)
def test_a_signature_on_each_curve_is_accepted(tmp_path, curve):
    private, public = write_keys(tmp_path, curve)
    verify(b"model", sign(b"model", "a.onnx", load_private_key(private)), load_public_key(public))


def test_a_signed_file_opens_under_another_name(signed):
    file, public = signed
    moved = file.rename(file.with_name("generator.onnx"))
    signature_path(file).rename(signature_path(moved))
    assert Generator.open(moved, public_key=public).card.name == "mlp-uci-digits"


def test_an_unsigned_file_is_refused_and_the_message_names_the_missing_signature(signed):
    file, public = signed
    signature_path(file).unlink()
    assert refusal(file, public) == f"{file}: signature: the file is not signed, there is no {file}.sig"


def test_a_signature_by_another_key_is_refused_with_the_hashes_of_both_keys(signed, tmp_path):
    file, public = signed
    _, other = write_keys(tmp_path, name="other")
    message = refusal(file, other)
    assert "it was made with another key" in message
    for key in (public, other):
        assert hashlib.sha256(key.read_bytes()).hexdigest() in message


def test_a_changed_file_is_refused_before_anything_in_it_is_parsed(signed, monkeypatch):
    file, public = signed
    file.write_bytes(file.read_bytes() + b"\0")
    monkeypatch.setattr("models.onnx_file.generator.verify_checksum", lambda *_: pytest.fail("the file is parsed"))
    assert "it is of another file: it signs the SHA-256 " in refusal(file, public)


def test_a_truncated_signature_is_refused_at_every_length(signed):
    file, public = signed
    key, whole = load_public_key(public), signature_path(file).read_bytes().rstrip()
    for length in range(len(whole)):
        with pytest.raises(SignatureError, match="truncated, or not a bundle"):
            verify(file.read_bytes(), whole[:length], key)


def changed(bundle: bytes, change) -> bytes:
    """Returns a bundle after a change to its JSON or to the JSON of its statement."""
    parsed = json.loads(bundle)
    statement = json.loads(base64.b64decode(parsed["dsseEnvelope"]["payload"]))
    change(parsed, statement)
    parsed["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    return json.dumps(parsed).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda bundle, statement: statement["predicate"]["resources"][0].update(digest="0" * 64), "is damaged"),
        (lambda bundle, statement: bundle["dsseEnvelope"]["signatures"][0].update(sig="AAAA"), "is damaged"),
        (lambda bundle, statement: bundle["dsseEnvelope"]["signatures"].clear(), "has 0 signatures"),
        (lambda bundle, statement: bundle["dsseEnvelope"].update(payloadType="text/plain"), "its types are"),
        (lambda bundle, statement: bundle.update(mediaType="application/json"), "its types are"),
        (lambda bundle, statement: bundle.update(verificationMaterial={"certificate": {}}), "made with certificate"),
        (lambda bundle, statement: bundle.update(verificationMaterial=[]), "not a bundle"),
        (lambda bundle, statement: bundle["dsseEnvelope"].update(signatures=7), "not a bundle"),
    ],
)
def test_a_changed_signature_is_refused_with_the_reason(signed, change, message):
    file, public = signed
    path = signature_path(file)
    path.write_bytes(changed(path.read_bytes(), change))
    assert message in refusal(file, public)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda statement: statement.update(predicateType="https://slsa.dev/provenance/v1"), "its statement is of the"),
        (
            lambda statement: statement["predicate"]["resources"].append({"algorithm": "sha256", "digest": ""}),
            "2 files",
        ),
        (lambda statement: statement["predicate"]["resources"][0].update(algorithm="blake3"), "by blake3"),
        (lambda statement: statement["predicate"]["serialization"].update(method="shards"), "1 shards"),
        (lambda statement: statement.pop("predicate"), "its statement is not one of"),
    ],
)
def test_a_valid_signature_of_another_statement_is_refused_with_the_reason(tmp_path, monkeypatch, change, message):
    private, public = write_keys(tmp_path)
    dumps = json.dumps

    def planted(value):
        if "predicate" in value:
            change(value)
        return dumps(value)

    monkeypatch.setattr("models.onnx_file.signature.json.dumps", planted)
    bundle = sign(b"model", "a.onnx", load_private_key(private))
    with pytest.raises(SignatureError, match=message):
        verify(b"model", bundle, load_public_key(public))


@pytest.mark.parametrize(
    ("kind", "named"), [("RSA", "RSA"), ("Ed25519", "Ed25519"), ("secp256k1", "on the curve secp256k1")]
)
def test_another_kind_of_key_is_refused_by_its_name(tmp_path, kind, named):
    private, public = write_keys(tmp_path, kind)
    for load, path in ((load_private_key, private), (load_public_key, public)):
        with pytest.raises(SignatureError, match=f"{named}; only ECDSA keys on the curves P-256, P-384 and P-521"):
            load(path)


def test_a_key_that_cannot_be_used_is_refused_with_the_remedy(tmp_path):
    encrypted, _ = write_keys(tmp_path, name="encrypted", password=b"secret")
    with pytest.raises(SignatureError, match="is encrypted; write a copy without a password: openssl pkey"):
        load_private_key(encrypted)
    private, public = write_keys(tmp_path)
    with pytest.raises(SignatureError, match="is a private key; give the public key"):
        load_public_key(private)
    with pytest.raises(SignatureError, match="is not a private key in PEM format"):
        load_private_key(public)
    with pytest.raises(SignatureError, match="cannot be read: No such file"):
        load_public_key(tmp_path / "nothing.pub")


def test_without_the_library_the_message_has_the_command_that_installs_it(signed, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "models.onnx_file.signature")
    monkeypatch.setitem(sys.modules, "cryptography", None)
    assert "cryptography" in (message := refusal(*signed))
    assert message.endswith("is not installed: pip install '.[signing]'")


@pytest.fixture(scope="session")
def model_signing(tmp_path_factory) -> Path:
    """The command of OpenSSF's library, installed in an environment of its own."""
    folder = tmp_path_factory.mktemp("model-signing")
    uv = Path(sys.executable).parent / "uv"
    install = [uv, "pip", "install", "--quiet", "--python", folder, "model-signing==1.1.1", "pyopenssl"]
    for command in ([sys.executable, "-m", "venv", "--without-pip", folder], install):
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode:
            pytest.skip(f"model-signing cannot be installed: {done.stderr.strip()[-200:]}")
    return folder / "bin" / "model_signing"


@pytest.mark.slow
@pytest.mark.parametrize("curve", CURVES)
def test_openssf_model_signing_verifies_our_signature_and_we_verify_its(model_signing, files, tmp_path, curve):
    file = Path(shutil.copy(files["conditional"], tmp_path / "a.onnx"))
    private, public = write_keys(tmp_path, curve)
    signature = signature_path(file)

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [model_signing, *arguments, "--signature", signature]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)

    signature.write_bytes(sign(file.read_bytes(), file.name, load_private_key(private)))
    assert run("verify", "key", file, "--public_key", public).returncode == 0
    _, other = write_keys(tmp_path, curve, "other")
    assert run("verify", "key", file, "--public_key", other).returncode != 0

    signature.unlink()
    signed = run("sign", "key", file, "--private_key", private)
    assert signed.returncode == 0, signed.stderr
    assert Generator.open(file, public_key=public).card.name == "mlp-uci-digits"
    file.write_bytes(file.read_bytes() + b"\0")
    assert "it is of another file" in refusal(file, public)
