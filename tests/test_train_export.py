"""`train export`: what plain transformers and PEFT load from it answers as the run does; what is off is refused."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import shared_base
from click.testing import CliRunner
from serving_models import free_port, serving
from training_cases import make_workspace

from curate.errors import TrainingError, TutelageError, WorkspaceError
from curate.files import beside, hold, write_json
from curate.manifest import Input, hash_files, read_manifest, write_manifest
from curate.verify import verify
from train.export import compared_rows, export
from train.merging import LARGEST_SHARE, check_merge
from train.ollama import go_template, modelfile, take_apart
from train.run import Run, load_run
from train.training import Request, train
from tutelage import main

PROMPT = "<|im_start|>user\ngadget0z0 red. gadget0z0?<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Any:
    """A workspace whose run has an adapter at scale 0.5, and its two exports."""
    place = make_workspace(
        tmp_path_factory.mktemp("ws"), tiny_base, adapter_scale={"from": [0.5], "pairs": 2, "items": 2}
    )
    run = train(place, Request(place.recipe))
    assert run.scale == 0.5
    return place, run, export(place, "run1", "adapter"), export(place, "run1", "merged")


def plain_base(run: Run, dtype: str = "float32") -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(run.recipe.base.model, dtype=dtype)


def logits(model: Any, tokenizer: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(torch.tensor([tokenizer(PROMPT, add_special_tokens=False)["input_ids"]])).logits[0].float()


def test_the_adapter_alone_answers_as_the_run_at_its_scale(made: Any) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoTokenizer

    from train.model import set_scale

    _, run, adapter, _ = made
    tokenizer = AutoTokenizer.from_pretrained(run.recipe.base.model)
    unscaled = PeftModel.from_pretrained(plain_base(run), str(run.adapter))
    whole = logits(unscaled, tokenizer)
    set_scale(unscaled, 0.5)
    wanted = logits(unscaled, tokenizer)
    found = logits(PeftModel.from_pretrained(plain_base(run), str(adapter.directory)), tokenizer)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert (whole - wanted).abs().max() > 0.1  # the scale matters
    template = (adapter.directory / "chat_template.jinja").read_text()
    assert template == AutoTokenizer.from_pretrained(run.recipe.base.model).chat_template
    assert "--max-lora-rank 8" in adapter.commands["vLLM"]


@pytest.mark.filterwarnings("ignore")  # PEFT warns that embeddings are saved, and that the head is tied to them
def test_the_scale_is_in_an_embeddings_adapter_too(tiny_base: Path, tmp_path: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from train.adapter import save_adapter, write_scaled
    from train.model import attach_lora, set_scale
    from train.recipe import Base, Lora

    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    targets = ("embed_tokens", "q_proj")
    tuned = attach_lora(AutoModelForCausalLM.from_pretrained(tiny_base), Lora(rank=4, targets=targets), 1)
    for name, one in tuned.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(one)
    for name in ("run", "scaled"):
        (tmp_path / name).mkdir()
    save_adapter(tuned, Base(model=str(tiny_base)), tmp_path / "run")
    write_scaled(SimpleNamespace(adapter=tmp_path / "run", scale=0.5), tmp_path / "scaled")  # type: ignore[arg-type]
    set_scale(tuned, 0.5)
    found = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), str(tmp_path / "scaled"))
    assert torch.allclose(logits(found, tokenizer), logits(tuned, tokenizer), atol=1e-4)


def test_a_base_that_sees_is_adapted_in_its_text_decoder_alone(tmp_path: Path) -> None:
    """Text gives a vision tower no gradient: its adapters would stay as they began, and stop training on two GPUs."""
    from peft import PeftModel
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    base = shared_base.save(shared_base.gemma3(initializer_range=0.1), tmp_path / "model")
    place = make_workspace(tmp_path / "ws", base, adapter_scale={"from": [1.0], "pairs": 2, "items": 2})
    run = train(place, Request(place.recipe))
    weights = load_file(run.adapter / "adapter_model.safetensors")
    assert all(name.startswith("base_model.model.model.language_model.layers.") for name in weights)
    trained = {name: float(one.abs().max()) for name, one in weights.items() if "lora_B" in name}
    assert len(trained) == 7
    assert 0 not in trained.values()  # where a B begins
    adapter, merged = (export(place, "run1", form, tmp_path / form) for form in ("adapter", "merged"))
    tokenizer = AutoTokenizer.from_pretrained(base)
    wanted = logits(PeftModel.from_pretrained(plain_base(run), str(run.adapter)), tokenizer)
    found = logits(PeftModel.from_pretrained(plain_base(run), str(adapter.directory)), tokenizer)
    assert (found - wanted).abs().max() < 1e-5
    assert merged.manifest.details["check"]["share_off"] < LARGEST_SHARE


def test_an_adapter_on_text_alone_names_nothing_to_leave_out(made: Any) -> None:
    _, run, _, _ = made
    assert json.loads((run.adapter / "adapter_config.json").read_text())["exclude_modules"] is None


def test_a_decoder_that_is_a_part_of_the_head_is_not_taken_for_the_text_decoder() -> None:
    from transformers import ModernBertDecoderConfig

    from train.memory import build_empty, outside_decoder
    from train.recipe import Lora

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = ModernBertDecoderConfig(vocab_size=320, pad_token_id=0, **sizes)
    assert outside_decoder(build_empty(config), Lora()) is None


def test_the_merged_model_alone_answers_as_base_and_adapter(made: Any) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place, run, adapter, merged = made
    model = AutoModelForCausalLM.from_pretrained(merged.directory)
    tokenizer = AutoTokenizer.from_pretrained(merged.directory)
    assert {one.dtype for one in model.parameters()} == {torch.bfloat16}
    assert not hasattr(model.config, "quantization_config")
    apart = PeftModel.from_pretrained(plain_base(run, "bfloat16"), str(adapter.directory))
    prompts = [tokenizer(one.prompt, add_special_tokens=False, return_tensors="pt") for one in _prompts(place, run)]
    for prompt in prompts:
        how = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0, "eos_token_id": 3}
        assert model.generate(**prompt, **how).tolist() == apart.generate(**prompt, **how).tolist()
    check = merged.manifest.details["check"]
    assert check["share_off"] < 0.02
    assert check["merging_kl"] < 1e-3 < check["adapter_kl"]
    assert check["tokens"] > 20
    assert model.generation_config.eos_token_id == [3]
    assert model.generation_config.do_sample is False
    names = {path.name for path in merged.directory.iterdir()}
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "contract.json", "Modelfile"} <= names
    assert not any(name.endswith((".bin", ".pt", ".pth")) for name in names)


def _prompts(place: Any, run: Run) -> list[Any]:
    from train.model import load_tokenizer

    rows = compared_rows(run, load_tokenizer(run.recipe.base))
    assert len(rows) > 6  # more than the general items: the release's validation pairs too
    return rows[-4:]


def test_an_export_names_its_run_and_can_be_verified_and_evaluated(made: Any) -> None:
    from eval.subject import find_subject

    place, run, adapter, merged = made
    for done in (adapter, merged):
        manifest = read_manifest(done.directory, "export")
        assert manifest.inputs["run"].sha256 == run.manifest.sha256
        assert hash_files(done.directory) == manifest.files
        assert json.loads((done.directory / "contract.json").read_text()) == run.contract
        walked = verify(done.directory)
        assert walked.findings == []
        assert [one.role for one in walked.chain.made_from] == ["run"]
    subject = find_subject(place, str(merged.directory), "cpu")
    assert subject.run is None
    assert subject.input(place.reports / "x") == (
        "model",
        Input(path="../../exports/run1-merged", sha256=merged.manifest.sha256),
    )
    with (merged.directory / "Modelfile").open("a") as handle:
        handle.write("# more")
    assert {one.rule for one in verify(merged.directory).findings} == {"file-changed"}


def test_the_command_prints_what_starts_a_server(made: Any, tmp_path: Path) -> None:
    place, _, _, _ = made
    command = ["-C", str(place.root), "train", "export", "run1", "--to", "adapter", "--out", str(tmp_path / "a")]
    ran = CliRunner().invoke(main, [*command, "--json"])
    assert ran.exit_code == 0, ran.output
    said = json.loads(ran.stdout)
    assert said["directory"] == str(tmp_path / "a")
    assert said["commands"]["vLLM"].startswith("vllm serve ")
    again = CliRunner().invoke(main, command)
    assert again.exit_code == 1
    assert "there is something here already" in again.output


def test_the_threshold_of_the_newest_report_goes_with_it(made: Any, tmp_path: Path) -> None:
    place, run, adapter, _ = made
    assert not (adapter.directory / "threshold.json").exists()
    for name, value, judged in (
        ("a", 0.8, run.manifest.sha256),
        ("b", None, run.manifest.sha256),
        ("c", 0.1, "0" * 64),
    ):
        directory = place.reports / name
        directory.mkdir(parents=True)
        write_json(directory / "scores.json", {"calibration": {"threshold": {"value": value, "alpha": 0.05}}})
        inputs = {"run": Input(path="../../runs/run1", sha256=judged)}
        write_manifest(directory, "report", name, inputs, {})
    done = export(place, "run1", "adapter", tmp_path / "x")
    threshold = json.loads((done.directory / "threshold.json").read_text())
    assert (threshold["value"], threshold["report"]) == (0.8, "a")
    assert done.manifest.inputs["report"].sha256 == threshold["report_sha256"]
    shutil.rmtree(place.reports)


@pytest.mark.parametrize("edited", ["scores.json", "manifest.json"])
def test_the_threshold_of_an_edited_report_is_refused(made: Any, tmp_path: Path, edited: str) -> None:
    place, run, _, _ = made
    directory = place.reports / "a"
    directory.mkdir(parents=True)
    write_json(directory / "scores.json", {"calibration": {"threshold": {"value": 0.875, "alpha": 0.05}}})
    inputs = {"run": Input(path="../../runs/run1", sha256=run.manifest.sha256)}
    write_manifest(directory, "report", "a", inputs, {"threshold": 0.875})
    path = directory / edited
    path.write_text(path.read_text().replace("0.875", "0.125"))
    command = ["-C", str(place.root), "train", "export", "run1", "--to", "adapter", "--out", str(tmp_path / "x")]
    ran = CliRunner().invoke(main, command)
    shutil.rmtree(place.reports)
    assert ran.exit_code == 1
    assert f"reports/a/{edited}" in ran.output
    assert "after it was written" in ran.output
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("form", ["adapter", "merged"])
def test_another_template_or_base_is_refused_and_nothing_is_left(made: Any, tmp_path: Path, form: Any) -> None:
    place, _, _, _ = made
    copy = tmp_path / "ws"
    shutil.copytree(place.root, copy)
    template = copy / "base" / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>assistant", "<|im_start|>model"))
    other = type(place)(copy)
    with pytest.raises(WorkspaceError, match="the base is not the one"):
        export(other, "run1", form, tmp_path / "out")
    run = load_run(copy / "runs" / "run1")
    changed = run.manifest.model_copy(update={"inputs": {**run.manifest.inputs, "base": _now(run)}})
    write_manifest(run.directory, "run", "run1", changed.inputs, run.manifest.details)
    with pytest.raises(WorkspaceError, match="template_sha256, example changed"):
        export(other, "run1", form, tmp_path / "out")
    assert list(tmp_path.iterdir()) == [copy]


def _now(run: Run) -> Input:
    from train.model import base_input

    return base_input(run.recipe.base, run.directory)


def test_a_merge_that_is_off_is_refused(made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft.tuners.lora import LoraModel

    from train.model import set_scale

    place, _, _, _ = made
    merge = LoraModel.merge_and_unload

    def twice(self: Any, *args: Any, **named: Any) -> Any:
        set_scale(self, 1.5)
        return merge(self, *args, **named)

    monkeypatch.setattr(LoraModel, "merge_and_unload", twice)
    with pytest.raises(TrainingError, match="the merged model is not base and adapter"):
        export(place, "run1", "merged", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == [".out.lock"]


def test_a_gentle_adapter_is_merged_although_rounding_moves_the_logits_more(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, _, _, _ = made
    monkeypatch.setattr(Run, "scale", property(lambda self: 0.002))
    done = export(place, "run1", "merged", tmp_path / "out")
    assert done.manifest.details["check"]["share_off"] > LARGEST_SHARE


def test_a_merge_that_forgot_a_gentle_adapter_is_refused(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora import LoraModel

    place, _, _, _ = made
    monkeypatch.setattr(Run, "scale", property(lambda self: 0.002))
    monkeypatch.setattr(LoraModel, "merge_and_unload", lambda self, **_: self.unload())
    with pytest.raises(TrainingError, match="q_proj is off by"):
        export(place, "run1", "merged", tmp_path / "out")


def test_logits_that_are_no_numbers_are_refused() -> None:
    import torch

    good = torch.randn(4, 10)
    base = torch.randn(4, 10)
    assert check_merge(base, good, good + 1, "bfloat16")["share_off"] < 1e-6  # softmax does not see a constant
    with pytest.raises(TrainingError, match="off by 100"):
        check_merge(base, good, base, "bfloat16")
    with pytest.raises(TrainingError, match="float16 does not hold"):
        check_merge(base, good, good.clone().fill_(torch.nan), "float16")


MISTRAL = (
    "{{ '<s>' }}{%- for m in messages -%}{%- if m['role'] == 'user' -%}[INST] {{ m['content'] }} [/INST]"
    "{%- elif m['role'] == 'assistant' -%}{{ m['content'] }}</s>{%- else -%}{{ raise_exception('no') }}{%- endif -%}"
    "{%- endfor -%}"
)
LLAMA = (
    "{{ '<|im_start|>' }}{%- for m in messages -%}{{ '<h>' + m['role'] + '</h>\n\n' + m['content'] | trim + '<e>' }}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{ '<h>assistant</h>\n\n' }}{%- endif -%}"
)


def test_a_template_becomes_gos_only_where_it_is_the_same() -> None:
    chatml = shared_base.make_tokenizer()
    pieces = take_apart(chatml)
    assert pieces is not None
    assert (pieces.opening, pieces.generation) == ("", "<|im_start|>assistant\n")
    assert go_template(pieces, adds_bos=False) == (
        '{{ range .Messages }}{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "user" }}<|im_start|>user\n{{ .Content }}<|im_end|>\n'
        '{{ else if eq .Role "assistant" }}<|im_start|>assistant\n{{ .Content }}<|im_end|>\n'
        "{{ end }}{{ end }}<|im_start|>assistant\n"
    )
    opened = take_apart(shared_base.make_tokenizer(LLAMA))
    assert opened is not None
    assert opened.opening == "<|im_start|>"
    assert not go_template(opened, adds_bos=True).startswith("<|im_start|>")
    assert take_apart(shared_base.make_tokenizer(MISTRAL)) is None
    contract = {"stop_tokens": [{"id": 3, "text": "<|im_end|>"}]}
    written = modelfile(chatml, contract, 4096)
    assert written.splitlines()[:2] == ["# ollama create NAME --file Modelfile", "FROM ."]
    assert 'PARAMETER stop "<|im_end|>"' in written
    assert "TEMPLATE" not in modelfile(shared_base.make_tokenizer(MISTRAL), contract, 4096)


def test_two_commands_do_not_write_one_export_at_once(made: Any, tmp_path: Path) -> None:
    place, _, _, _ = made
    out = tmp_path / "out"
    with hold(beside(out), out), pytest.raises(WorkspaceError, match="another tutelage command is writing here"):
        export(place, "run1", "adapter", out)
    assert not out.exists()


def test_there_must_be_a_run(tmp_path: Path, tiny_base: Path) -> None:
    place = make_workspace(tmp_path / "ws", tiny_base)
    with pytest.raises(TutelageError, match="there is no run yet"):
        export(place, None, "merged")


def test_an_adapters_files_do_not_say_where_the_workspace_lies(made: Any) -> None:
    place, run, _, _ = made
    config = json.loads((run.adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"
    assert config["target_modules"] == sorted(config["target_modules"])
    assert str(place.root) not in json.dumps(config)


@pytest.mark.slow
def test_a_real_server_starts_from_the_merged_directory_by_the_printed_command(made: Any) -> None:
    from eval.endpoint import Endpoint, Served
    from eval.subject import Subject
    from train.recipe import Base

    _, _, _, merged = made
    command = shlex.split(merged.commands["transformers"].replace("8000", str(port := free_port())))
    command[0] = str(Path(sys.executable).with_name(command[0]))
    with serving([*command, "--host", "127.0.0.1", "--device", "cpu"], port) as url:
        conversations = [[{"role": "user", "content": f"gadget{i * i}z{i}?"}] for i in range(6)]
        outside = Endpoint("run1", Served(url, str(merged.directory), logprobs=False))
        inside = Subject("run1", Base(model=str(merged.directory)), None, "cpu")
        found = outside.answer("tuned", [outside.render(one) for one in conversations], 12)
        wanted = inside.answer("tuned", [inside.render(one) for one in conversations], 12)
    assert [one.finished for one in found] == [one.finished for one in wanted]
    same = sum(one.text == other.text for one, other in zip(found, wanted, strict=True))
    assert same >= 5  # the server computes in 16 bits, we in 32: a tie may fall the other way
