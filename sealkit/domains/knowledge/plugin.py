"""The knowledge plug-in: the policy writes notes or questions on a passage; an adapter trained on the notes, or on the
answers of a teacher or of the passage itself to the questions, answers other questions on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sealkit import limits
from sealkit.config import InnerLoopConfig
from sealkit.dataset.rows import Records, Row
from sealkit.domains.base import Context, ExamItem, Rejected, Study, StudyItem
from sealkit.domains.knowledge.blanks import blanks_of
from sealkit.domains.knowledge.cues import STUDY_CUES, cues_of
from sealkit.domains.knowledge.exam import fault_of_item, overlap
from sealkit.domains.knowledge.prompts import Style, numbered, self_edit_prompt
from sealkit.domains.knowledge.published import passages_of
from sealkit.domains.knowledge.questions import (
    TeacherStyle,
    question_prompt,
    read_questions,
    says_something,
    study_questions,
    teacher_prompt,
    words_of,
)
from sealkit.domains.knowledge.quoting import quoted_answers
from sealkit.domains.knowledge.records import Passage, read_passages
from sealkit.domains.knowledge.sequences import training_sequences
from sealkit.errors import InvalidConfig
from sealkit.types import Prompt, PromptFormat, Query, TrainingExample, TrainingSpec, digest_of
from sealkit.writing import letter_count

_TITLE_CHARACTERS = 300


class KnowledgeOptions(BaseModel):
    """The `[domain.options]` table."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    style: Style = Style.IMPLICATIONS
    """What the self-edit is: `implications`, `implications_long`, `implications_very_long`, `rewrite` or `self_qa`, as
    in SEAL, or `questions`."""
    prompt_format: PromptFormat = PromptFormat.AUTO
    """How the self-edit prompt is rendered; `auto` uses the chat template if the model has one."""
    worked_example: bool = True
    """Show the editor one worked example first."""
    question_format: PromptFormat = PromptFormat.AUTO
    """How the held-out questions are rendered."""
    split_newlines: bool = True
    """Train on each line of a self-edit separately (SEAL's default for lists)."""
    min_letters: int = Field(20, ge=1)
    """A self-edit with fewer letters is rejected as empty of content. Letters of any script count; those of Chinese,
    Japanese and Korean as the two or three of an alphabet that say as much."""
    max_characters: int = Field(20_000, ge=1)
    """A longer self-edit is rejected."""
    passage_beside: bool = True
    """Train on the passage itself too, as SEAL does; always with cross-entropy."""
    cues: int = Field(0, ge=0, le=64)
    """Train on this many cues for each sentence of the passage, too: two or three of its words as the question, the
    sentence as the answer; with cross-entropy."""
    max_questions: int = Field(24, ge=1, le=256)
    """Style `questions`: at most this many of a self-edit are answered."""
    answers: Literal["teacher", "quoted"] = "teacher"
    """Style `questions`: who answers them. `teacher`: the base model with the passage in its prompt; `quoted`: the
    sentence of the passage that shares most with the question, which is trained on with cross-entropy."""
    teacher_style: TeacherStyle = TeacherStyle.INSTRUCTED
    """`answers = "teacher"`: the teacher's prompt; `bare` is passage and question, `worked` has two worked examples."""
    filter_answers: bool = True
    """`answers = "teacher"`: leave out answers without content. Empty ones are always left out."""


class KnowledgeDomain:
    """SEAL's knowledge incorporation (arXiv 2506.10943, section 3.1). Raises InvalidConfig on an unknown option."""

    name = "knowledge"
    version = "1"
    judge = "content"
    completion_schema = ""

    def __init__(self, options: Mapping[str, Any], inner_loop: InnerLoopConfig) -> None:
        try:
            self.options = KnowledgeOptions.model_validate(options)
        except ValidationError as error:
            fields = tuple((f"domain.options.{'.'.join(map(str, e['loc']))}", e["msg"]) for e in error.errors())
            raise InvalidConfig("; ".join(f"{path}: {message}" for path, message in fields), fields=fields) from error
        self.inner_loop = inner_loop

    def records(self, rows: Sequence[Row], notices: Sequence[str]) -> Records:
        """See `passages_of`."""
        return passages_of(rows, notices)

    def contexts(self, records: Sequence[Mapping[str, Any]]) -> list[Context]:
        """See `read_passages`."""
        return read_passages(records)

    def prompt(self, context: Context) -> Prompt:
        passage = Passage.model_validate(context.payload)
        return self_edit_prompt(
            self.options.style,
            passage.title,
            passage.context,
            self.options.prompt_format,
            worked_example=self.options.worked_example,
        )

    def compile(self, context: Context, completion: str, seed: int) -> TrainingSpec:
        """Raises Rejected: EMPTY, NOT_TEXT (too few letters, or bytes that are not text) or TOO_LONG; of quoted answers
        NO_QUESTIONS, NO_ANSWERS and ONLY_THE_EXAM; UNANSWERED for questions whose spec needs the teacher's answers
        (`teach`)."""
        text = self._checked(completion)
        if self._studies_cues(text):
            return self._spec(self._beside(context, seed), seed)
        passage = Passage.model_validate(context.payload)
        if self._quotes:
            return self._answered(context, self._quoted(passage, text), seed)
        if self.options.style is Style.QUESTIONS:
            raise Rejected("UNANSWERED", "questions need a teacher's answers to train on")
        *notes, _ = training_sequences(
            text, title=passage.title, context=passage.context, split_newlines=self.options.split_newlines
        )
        examples = [self._note(passage, note) for note in notes]
        return self._spec([*examples, *self._beside(context, seed)], seed)

    def study(self, context: Context, completion: str) -> Study | None:
        """The questions of a completion for the teacher; None if it has none to answer. Raises Rejected like `compile`,
        and NO_QUESTIONS."""
        if self.options.style is not Style.QUESTIONS or self._quotes or self._studies_cues(completion):
            return None
        passage = Passage.model_validate(context.payload)
        questions = read_questions(self._checked(completion), self.options.max_questions)
        form, style = self.options.question_format, self.options.teacher_style
        return study_questions(questions, passage.title, passage.context, form, style)

    def teach(self, context: Context, study: Study, answers: Sequence[str], seed: int) -> TrainingSpec:
        """The spec of the questions with the teacher's answers, and of the passage; without what a generated exam asks.
        Raises Rejected: NO_ANSWERS, or ONLY_THE_EXAM if nothing else is left."""
        distil = self.inner_loop.objective == "distil"
        examples = [
            TrainingExample(
                text=answer.strip(), prompt=item.prompt, teacher_prompt=item.teacher_prompt if distil else None
            )
            for item, answer in zip(study.items, answers, strict=True)
            if self._of_use(item, answer)
        ]
        if not examples:
            raise Rejected("NO_ANSWERS", f"none of {len(answers)} answers has content")
        return self._answered(context, examples, seed)

    def context_only(self, context: Context, seed: int) -> TrainingSpec:
        """The passage under its title, as the only example."""
        return self._spec([self._passage(context)], seed)

    def queries(self, context: Context) -> list[Query]:
        """Each question after a line with its topic, as in SEAL, without the passage."""
        passage = Passage.model_validate(context.payload)
        return [
            Query(
                query_id=f"{context.context_id}/{number}",
                question=item.question,
                gold=item.answer,
                other_golds=item.other_answers,
                prompt=question_prompt(passage.title, item.question, self.options.question_format),
            )
            for number, item in enumerate(passage.questions)
        ]

    # --- documents ----------------------------------------------------------------------------------------------------
    def of_passage(self, title: str, headings: Sequence[str], text: str) -> Context:
        """The context of a document's passage; its title is that of the document, with the headings. The context's id,
        which is part of names that are kept, contains no text."""
        passage = Passage(title=": ".join([title, *headings])[:_TITLE_CHARACTERS], context=text, questions=())
        return Context(
            context_id=f"passage-{digest_of(passage.title, passage.context)[:16]}",
            split=passage.split,
            payload=passage.model_dump(mode="json"),
            generated=True,
        )

    def passage_text(self, context: Context) -> str:
        passage = Passage.model_validate(context.payload)
        return f"{passage.title}\n{passage.context}"

    def exam_prompt(self, context: Context) -> Prompt:
        """That of a self-edit in the style `questions`: after any other example or request that was tried, a small
        model writes worse questions (docs/results/LOG.md)."""
        passage = Passage.model_validate(context.payload)
        form = self.options.prompt_format
        return self_edit_prompt(Style.QUESTIONS, passage.title, passage.context, form, worked_example=True)

    def exam_items(self, context: Context, completions: Sequence[str]) -> list[ExamItem]:
        questions: dict[str, str] = {}
        for completion in completions:
            with suppress(Rejected):
                for question in read_questions(completion, limits.PROMPTS):
                    questions.setdefault(words_of(question), question)
        passage = Passage.model_validate(context.payload)
        return [self._exam_item(passage, question) for question in list(questions.values())[: limits.PROMPTS]]

    def exam_blanks(self, context: Context) -> list[ExamItem]:
        """See `blanks_of`."""
        passage = Passage.model_validate(context.payload)
        blanks = blanks_of(passage.title, passage.context)[: limits.PROMPTS]
        return [self._exam_item(passage, blank.question, blank.answer) for blank in blanks]

    def exam_fault(self, context: Context, question: str, answer: str) -> str:
        passage = Passage.model_validate(context.payload)
        return fault_of_item(passage.title, passage.context, question, answer)

    def overlap(self, context: Context, one: tuple[str, str], other: tuple[str, str]) -> float:
        return overlap(Passage.model_validate(context.payload).title, one, other)

    def with_exam(self, context: Context, exam: Sequence[tuple[str, str]], overlap: float) -> Context:
        questions = [{"question": question, "answer": answer} for question, answer in exam]
        return context.changed(payload={**context.payload, "questions": questions, "largest_overlap": overlap})

    def ready_made(self, context: Context) -> Mapping[str, str]:
        """`cues`, with `options.cues`: nothing but the cues and the passage. `exam`: the held-out questions themselves,
        in the style `questions`; an upper bound for questions. None of a generated exam, which no study may contain."""
        found = {"cues": STUDY_CUES} if self.options.cues else {}
        passage = Passage.model_validate(context.payload)
        if self.options.style is Style.QUESTIONS and passage.questions and not context.generated:
            found["exam"] = numbered(*(item.question for item in passage.questions))
        return found

    def _studies_cues(self, completion: str) -> bool:
        return self.options.cues > 0 and completion.strip() == STUDY_CUES

    def _exam_item(self, passage: Passage, question: str, answer: str = "") -> ExamItem:
        form, style = self.options.question_format, self.options.teacher_style
        return ExamItem(
            question=question,
            prompt=question_prompt(passage.title, question, form),
            open_book=teacher_prompt(passage.title, passage.context, question, form, style),
            answer=answer,
        )

    def _checked(self, completion: str) -> str:
        """The validated text of a completion. Raises Rejected."""
        text = completion.strip()
        if not text:
            raise Rejected("EMPTY", "the completion is empty")
        letters = letter_count(text)
        if letters < self.options.min_letters:
            raise Rejected("NOT_TEXT", f"{letters} letters; the minimum is {self.options.min_letters}")
        broken = text.count("\ufffd")
        if "\x00" in text or broken > letters // 10:
            raise Rejected("NOT_TEXT", f"{broken + text.count(chr(0))} of {len(text)} characters are not text")
        if len(text) > self.options.max_characters:
            raise Rejected("TOO_LONG", f"{len(text)} characters; the limit is {self.options.max_characters}")
        return text

    def _of_use(self, item: StudyItem, answer: str) -> bool:
        """Whether to train on an answer."""
        if not self.options.filter_answers:
            return bool(answer.strip())
        return says_something(item.prompt.user.rpartition("\n")[2], answer)

    @property
    def _quotes(self) -> bool:
        return self.options.style is Style.QUESTIONS and self.options.answers == "quoted"

    def _quoted(self, passage: Passage, text: str) -> list[TrainingExample]:
        """The questions of a self-edit, each with its sentence of the passage. Raises Rejected: NO_QUESTIONS,
        NO_ANSWERS."""
        questions, form = read_questions(text, self.options.max_questions), self.options.question_format
        answers = quoted_answers(questions, passage.title, passage.context)
        examples = [
            TrainingExample(text=answer, prompt=question_prompt(passage.title, question, form))
            for question, answer in zip(questions, answers, strict=True)
            if answer
        ]
        if not examples:
            raise Rejected("NO_ANSWERS", f"no sentence of the passage has a word of the {len(questions)} questions")
        return examples

    def _answered(self, context: Context, examples: Sequence[TrainingExample], seed: int) -> TrainingSpec:
        """The spec of answered questions, without what a generated exam asks. Raises Rejected: ONLY_THE_EXAM."""
        passage = Passage.model_validate(context.payload)
        allowed = [example for example in examples if not _asked_in_exam(passage, example)]
        if not allowed:
            raise Rejected("ONLY_THE_EXAM", f"all of {len(examples)} questions ask what the exam asks")
        return self._spec([*allowed, *self._beside(context, seed)], seed)

    def _passage(self, context: Context) -> TrainingExample:
        passage = Passage.model_validate(context.payload)
        return TrainingExample(text=f"{passage.title}\n{passage.context.strip()}")

    def _beside(self, context: Context, seed: int) -> list[TrainingExample]:
        """What is trained on besides a self-edit: cues and the passage, as the options say."""
        return [*self.cues(context, seed), *([self._passage(context)] if self.options.passage_beside else [])]

    def cues(self, context: Context, seed: int) -> list[TrainingExample]:
        """The cues of a passage (`options.cues` for each sentence), with their sentences."""
        passage, form = Passage.model_validate(context.payload), self.options.question_format
        return [
            TrainingExample(text=sentence, prompt=question_prompt(passage.title, cue, form))
            for cue, sentence in cues_of(passage.title, passage.context, self.options.cues, seed)
        ]

    def _note(self, passage: Passage, note: str) -> TrainingExample:
        """A note under its title. For distillation, the teacher's prompt contains the passage."""
        if self.inner_loop.objective == "sft":
            return TrainingExample(text=note)
        head = f"{passage.title}\n"
        return TrainingExample(
            text=note.removeprefix(head),
            prompt=Prompt(user=head, format=PromptFormat.PLAIN),
            teacher_prompt=Prompt(user=f"{head}{passage.context.strip()}\n", format=PromptFormat.PLAIN),
        )

    def _spec(self, examples: Sequence[TrainingExample], seed: int) -> TrainingSpec:
        return TrainingSpec(
            examples=tuple(examples),
            lora=self.inner_loop.lora,
            optimisation=self.inner_loop.optimisation,
            distillation=self.inner_loop.distillation,
            append_eos=self.inner_loop.append_eos,
            seed=seed,
        )


def _asked_in_exam(passage: Passage, example: TrainingExample) -> bool:
    """Whether an example of a study has a fact of the passage's generated exam. A given exam restricts nothing."""
    if passage.largest_overlap is None or example.prompt is None:
        return False
    fact = (example.prompt.user.rpartition("\n")[2], example.text)
    exam = [(item.question, item.answer) for item in passage.questions]
    return any(overlap(passage.title, fact, asked) > passage.largest_overlap for asked in exam)
