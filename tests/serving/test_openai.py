"""OpenAI's own client asks the server for texts, chats, vectors and models."""

from __future__ import annotations

import pytest

openai = pytest.importorskip("openai", reason="needs openai")
pytest.importorskip("starlette", reason="needs starlette; pip install 'jaxmodels[serve]'")

from serving.hosting import echo, embedder, hosted, summer  # noqa: E402


@pytest.fixture(scope="module")
def client():
    base = echo(slots=4, queue=8)
    models = (base, base.with_adapter("loud"), echo("plain", template=""), embedder(), summer())
    with (
        hosted(*models) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client,
    ):
        yield client


def chat(content="Hi"):
    return [{"role": "user", "content": content}]


def test_a_completion_has_text_finish_and_usage(client):
    said = client.completions.create(model="echo", prompt="Hello", max_tokens=7)
    assert (said.choices[0].text, said.choices[0].finish_reason) == ("HelloHe", "length")
    assert (said.usage.prompt_tokens, said.usage.completion_tokens, said.usage.total_tokens) == (5, 7, 12)
    assert said.object == "text_completion" and said.model == "echo" and said.id.startswith("cmpl-")


def test_prompts_are_texts_or_tokens_one_or_several_each_with_its_choices(client):
    ask = {"model": "echo", "max_tokens": 2, "n": 2, "temperature": 0, "seed": 1}
    said = client.completions.create(prompt=["ab", "cd"], **ask)
    assert [(one.index, one.text) for one in said.choices] == [(0, "ab"), (1, "ab"), (2, "cd"), (3, "cd")]
    assert said.usage.prompt_tokens == 4
    assert client.completions.create(prompt=[97, 98], **ask).choices[0].text == "ab"
    assert client.completions.create(prompt=[[97], [98]], **ask).choices[2].text == "bb"


def test_a_chat_is_written_by_the_template_and_begins_with_the_role(client):
    said = client.chat.completions.create(
        model="echo",
        messages=[
            {"role": "system", "content": "S"},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ],
        max_completion_tokens=28,
    )
    assert said.choices[0].message.content == "[system]S[user]Hi[assistant]"
    assert said.choices[0].message.role == "assistant" and said.usage.prompt_tokens == 28


@pytest.mark.parametrize("chatting", [False, True], ids=["completions", "chat"])
def test_a_stream_has_the_same_text_in_pieces_and_ends_with_the_usage(client, chatting):
    ask = {"model": "echo", "max_tokens": 20, "n": 2, "stream_options": {"include_usage": True}}
    if chatting:
        pieces = [*client.chat.completions.create(messages=chat(), stream=True, **ask)]
        text = lambda choice: choice.delta.content or ""  # noqa: E731
        assert [x.choices[0].delta.role for x in pieces[:2]] == ["assistant", "assistant"]
    else:
        pieces = [*client.completions.create(prompt="[user]Hi[assistant]", stream=True, **ask)]
        text = lambda choice: choice.text  # noqa: E731
    texts = ["", ""]
    for piece in pieces[:-1]:
        [choice] = piece.choices
        texts[choice.index] += text(choice)
    assert texts == ["[user]Hi[assistant][", "[user]Hi[assistant]["]
    assert len({piece.id for piece in pieces}) == 1 and len(pieces) > 20
    assert pieces[-1].choices == [] and pieces[-1].usage.completion_tokens == 40
    ends = [x.choices[0].finish_reason for x in pieces[:-1] if x.choices[0].finish_reason]
    assert ends == ["length", "length"]


def test_log_probabilities_are_of_the_chosen_tokens(client):
    said = client.completions.create(model="echo", prompt="abc", max_tokens=3, logprobs=0).choices[0].logprobs
    assert (said.tokens, said.token_logprobs, said.text_offset) == (["a", "b", "c"], [-0.5] * 3, [0, 1, 2])
    said = client.chat.completions.create(model="echo", messages=chat(), max_tokens=2, logprobs=True)
    assert [(x.token, x.logprob, x.bytes) for x in said.choices[0].logprobs.content] == [
        ("[", -0.5, [91]),
        ("u", -0.5, [117]),
    ]
    pieces = client.completions.create(model="echo", prompt="abc", max_tokens=2, logprobs=0, stream=True)
    assert [x for piece in pieces for x in piece.choices[0].logprobs.tokens] == ["a", "b"]


@pytest.mark.parametrize("form", ["float", "base64", openai.NOT_GIVEN])
def test_vectors_are_those_of_the_model_in_the_order_of_the_texts(client, form):
    said = client.embeddings.create(model="letters", input=["ab", "b"], encoding_format=form)
    assert [one.index for one in said.data] == [0, 1]
    if form != "base64":  # which the client leaves as it came where one asks for it
        assert said.data[0].embedding == [97.0, 98.0, *[32.0] * 6]
    assert said.model == "letters"


def test_models_are_listed_with_what_they_do(client):
    listed = {model.id: model.does for model in client.models.list()}
    assert listed == {
        "echo": ["completions", "chat"],
        "loud": ["completions", "chat"],
        "plain": ["completions"],
        "letters": ["embeddings", "predict"],
        "sums": ["predict"],
    }
    assert client.models.retrieve("sums").fields == ["a", "b"]


def test_an_adapter_is_asked_for_by_its_own_name(client):
    ask = {"prompt": "ab", "max_tokens": 3}
    texts = [client.completions.create(model=x, **ask).choices[0].text for x in ("echo", "loud")]
    assert texts == ["aba", "ABA"] and client.models.retrieve("loud").parent == "echo"


def test_what_is_wrong_comes_as_the_clients_own_errors_with_the_field(client):
    with pytest.raises(
        openai.NotFoundError, match="expected one of echo, loud, plain, letters, sums"
    ) as caught:
        client.completions.create(model="gpt-9", prompt="x")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")
    with pytest.raises(openai.BadRequestError, match="plain, which has no chat template") as caught:
        client.chat.completions.create(model="plain", messages=chat())
    assert caught.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="letters, which does embeddings, predict"):
        client.chat.completions.create(model="letters", messages=chat())
    with pytest.raises(openai.BadRequestError, match="Name echo or loud or plain"):
        client.completions.create(model="sums", prompt="x")
    with pytest.raises(openai.BadRequestError, match="got 514 tokens; expected 1 to 511") as caught:
        client.completions.create(model="echo", prompt="x" * 514)
    assert caught.value.code == "context_length_exceeded"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("temperature", "hot", "a number from 0 to 2"),
        ("temperature", 2.5, "a number from 0 to 2"),
        ("top_p", 0, "a number above 0 and at most 1"),
        ("n", 0, "a whole number from 1 to 64"),
        ("n", True, "a whole number"),
        ("max_tokens", 5000, "a whole number from 1 to 1,024"),
        ("stream", 1, "true or false"),
        ("stop", ["a", ""], "1 to 200 characters"),
        ("stop", 3, "a string or at most 16 of them"),
        ("seed", 0.5, "a whole number"),
        ("logit_bias", {"5": 1}, "not followed here"),
        ("presence_penalty", 1, "not followed here"),
        ("tools", [{}], "not supported here"),
        ("suffix", "x", "texts are only continued"),
        ("echo", True, "not repeated"),
        ("logprobs", 3, "only the tokens that were chosen"),
        ("best_of", 3, "every text is given back"),
        ("stream_options", {"include_usage": True}, "only beside stream true"),
        ("response_format", {"type": "xml"}, '"text" or "json_object" or "json_schema"'),
        ("response_format", {"type": "json_schema"}, "an object with a schema"),
        ("prompt", [], "a string, a list of tokens"),
        ("prompt", [97, 300], "a token from 0 to 255"),
        ("prompt", {"a": 1}, "a string, a list of tokens"),
        ("prompt", "", "expected 1 to 511"),
    ],
)
def test_a_field_that_is_wrong_or_not_followed_is_refused_by_its_name(client, field, value, said):
    with pytest.raises(openai.BadRequestError, match=said) as caught:
        client.completions.create(**{"model": "echo", "prompt": "x", "extra_body": {field: value}})
    assert caught.value.param.startswith(field)


def test_fields_that_change_nothing_are_accepted(client):
    said = client.completions.create(
        model="echo",
        prompt="ab",
        max_tokens=2,
        best_of=1,
        echo=False,
        frequency_penalty=0,
        logit_bias={},
        user="me",
        extra_body={
            "metadata": {"a": "b"},
            "top_k": 3,
            "min_p": 0.1,
            "repetition_penalty": 1.1,
            "suffix": None,
        },
    )
    assert said.choices[0].text == "ab"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ("x", "messages"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "robot", "content": "x"}], "messages[0].role"),
        ([{"role": "user", "content": "x", "tool_calls": []}], "messages[0].tool_calls"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].type"),
    ],
)
def test_a_message_that_is_wrong_is_named_by_its_place(client, messages, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="echo", messages=messages)
    assert caught.value.param == param
