"""A chat as text: what transformers writes with the same template, and nothing beyond the sandbox."""

from __future__ import annotations

import json

import pytest

from jaxmodels.serving.chat_template import ChatTemplate, find

jinja2 = pytest.importorskip("jinja2", reason="needs jinja2; pip install 'jaxmodels[serve]'")

CHAT = [
    {"role": "system", "content": "Be brief. "},
    {"role": "user", "content": "  Two & two?\n"},
    {"role": "assistant", "content": "4 <b>"},
    {"role": "user", "content": "Thanks, élan", "name": "Ann"},
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
TEMPLATES = {
    "chatml": "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] "
    "+ '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% endif %}",
    "blocks": """{{ bos_token }}
{% if messages[0]['role'] == 'system' %}
    {% set offset = 1 %}
    {{ messages[0]['content'] | trim }}
{% else %}
    {% set offset = 0 %}
{% endif %}
{% for message in messages[offset:] %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('Roles must alternate') }}
    {% endif %}
    {% if loop.index > 8 %}{% break %}{% endif %}
    {{ '[' ~ message['role'] ~ ']' }} {{- message['content'] | trim }}{{ eos_token }}
{% endfor %}
""",
    "namespace": "{% set ns = namespace(n=0, seen=dict(a=1)) %}"
    "{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{% generation %}{{ m | tojson }}{% set ns.n = ns.n + 1 %}{% endgeneration %}{% endfor %}{{ ns.n }}"
    "{{ tools is none }}{{ messages | map(attribute='role') | join(', ') }}{{ '<&>' }}"
    "{{ strftime_now('%Y') }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_writes_what_transformers_writes(name, tmp_path):
    render = pytest.importorskip("transformers.utils.chat_template_utils").render_jinja_template
    settings = {"chat_template": TEMPLATES[name], **TOKENS, "pad_token": {"content": "<pad>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    [expected], _ = render([CHAT], chat_template=TEMPLATES[name], add_generation_prompt=True, **TOKENS)
    template = find(tmp_path)
    assert template is not None and template(CHAT) == expected


def test_a_template_of_its_own_file_goes_before_that_of_the_settings(tmp_path):
    assert find(tmp_path) is None
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps(
            {"chat_template": [{"name": "tools", "template": "t"}, {"name": "default", "template": "d"}]}
        )
    )
    assert find(tmp_path)(CHAT) == "d"
    (tmp_path / "chat_template.jinja").write_text("file")
    assert find(tmp_path)(CHAT) == "file"
    (tmp_path / "given").write_text("given")
    assert find(tmp_path, given=str(tmp_path / "given"))(CHAT) == "given"


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('no') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ messages[9].content }}",
        "{{ 1 / 0 }}",
        "{{ range(10 ** 9) }}",
        "{% set x = namespace() %}{% set x.__class__ = 1 %}{{ x.__class__.y }}",
    ],
)
def test_what_leaves_the_sandbox_or_fails_is_refused(source, tmp_path):
    with pytest.raises(ValueError, match="the model's template refuses"):
        ChatTemplate(source, TOKENS, tmp_path)(CHAT)


def test_a_chat_is_never_read_as_a_template(tmp_path):
    attack = "{{ 7 * 7 }}{% for x in y %}"
    template = ChatTemplate("{{ messages[0].content }}", TOKENS, tmp_path)
    assert template([{"role": "user", "content": attack}]) == attack


def test_a_template_that_is_none_is_refused_with_its_file(tmp_path):
    (tmp_path / "chat_template.jinja").write_text("{% for x in %}")
    with pytest.raises(ValueError, match=r"chat_template\.jinja: got a chat template that Jinja refuses"):
        find(tmp_path)
