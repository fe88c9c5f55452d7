"""What a model is for, by its configuration: which class of transformers has the weights, and what files it becomes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onnxport import InputError

DECODER, ENCODER_DECODER, SINGLE = "decoder", "encoder-decoder", "single"


@dataclass(frozen=True)
class Task:
    """A use of models.

    Attributes:
        name: as the hub calls it.
        factory: the class of transformers that builds models for it.
        mapping: where transformers lists the classes of models for it.
        form: which files a model becomes.
    """

    name: str
    factory: str
    mapping: str
    form: str = SINGLE


TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("text-generation", "AutoModelForCausalLM", "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES", DECODER),
        Task(
            "text2text-generation",
            "AutoModelForSeq2SeqLM",
            "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
            ENCODER_DECODER,
        ),
        Task(
            "automatic-speech-recognition",
            "AutoModelForSpeechSeq2Seq",
            "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
            ENCODER_DECODER,
        ),
        Task("speech-to-characters", "AutoModelForCTC", "MODEL_FOR_CTC_MAPPING_NAMES"),
        Task("fill-mask", "AutoModelForMaskedLM", "MODEL_FOR_MASKED_LM_MAPPING_NAMES"),
        Task(
            "text-classification",
            "AutoModelForSequenceClassification",
            "MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES",
        ),
        Task("token-classification", "AutoModelForTokenClassification", "MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES"),
        Task("question-answering", "AutoModelForQuestionAnswering", "MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES"),
        Task("image-classification", "AutoModelForImageClassification", "MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES"),
        Task("object-detection", "AutoModelForObjectDetection", "MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES"),
        Task(
            "image-segmentation",
            "AutoModelForSemanticSegmentation",
            "MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES",
        ),
        Task("depth-estimation", "AutoModelForDepthEstimation", "MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES"),
        Task(
            "zero-shot-image-classification",
            "AutoModelForZeroShotImageClassification",
            "MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES",
        ),
        Task("audio-classification", "AutoModelForAudioClassification", "MODEL_FOR_AUDIO_CLASSIFICATION_MAPPING_NAMES"),
        Task("image-text-to-text", "AutoModelForImageTextToText", "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES"),
        Task("any-to-any", "AutoModelForMultimodalLM", "MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES"),
        Task("video-classification", "AutoModelForVideoClassification", "MODEL_FOR_VIDEO_CLASSIFICATION_MAPPING_NAMES"),
        Task(
            "zero-shot-object-detection",
            "AutoModelForZeroShotObjectDetection",
            "MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES",
        ),
        Task("mask-generation", "AutoModelForMaskGeneration", "MODEL_FOR_MASK_GENERATION_MAPPING_NAMES"),
        Task(
            "universal-segmentation",
            "AutoModelForUniversalSegmentation",
            "MODEL_FOR_UNIVERSAL_SEGMENTATION_MAPPING_NAMES",
        ),
        Task("keypoint-detection", "AutoModelForKeypointDetection", "MODEL_FOR_KEYPOINT_DETECTION_MAPPING_NAMES"),
        Task("image-to-image", "AutoModelForImageToImage", "MODEL_FOR_IMAGE_TO_IMAGE_MAPPING_NAMES"),
        Task("feature-extraction", "AutoModel", "MODEL_MAPPING_NAMES"),
    )
}


def task_of(config: Any, name: str | None = None) -> Task:
    """The task that is asked for, or that of the class that a folder's weights belong to.

    Raises:
        InputError: there is no such task, or the configuration tells none.
    """
    if name is not None:
        if name not in TASKS:
            raise InputError(f"There is no task {name!r}. Name one of: {', '.join(TASKS)}.", parameter="task")
        return TASKS[name]
    for task in TASKS.values():
        if task.factory in (getattr(config, "auto_map", None) or ()):
            return task
    from transformers.models.auto import modeling_auto

    classes = getattr(config, "architectures", None) or []
    for task in TASKS.values():
        listed = getattr(modeling_auto, task.mapping, {})
        names = listed.get(config.model_type, ())
        if any(each in ((names,) if isinstance(names, str) else names) for each in classes):
            return task
    raise InputError(
        f"The configuration of type {config.model_type!r} names {', '.join(classes) or 'no class'}, which is of no "
        f"task that is known here. Name the task: {', '.join(TASKS)}.",
        parameter="task",
    )


def factory_of(task: Task) -> Any:
    """The class of transformers that builds models for a task.

    Raises:
        InputError: this transformers doesn't have it.
    """
    import transformers

    found = getattr(transformers, task.factory, None)
    if found is None:
        raise InputError(
            f"transformers {transformers.__version__} has no {task.factory}, which {task.name} needs: install a newer "
            "one.",
            parameter="task",
        )
    return found
