"""Question and answer wordings: the published ones first, then our own paraphrases."""

from __future__ import annotations

from unibiomed_core.tasks import TASKS

SEGMENT_QUESTIONS = (
    TASKS["segment"].instruction,
    "<image>\nCan you outline {target}?",
    "<image>\nWhere is {target}? Give a mask.",
    "<image>\nMark {target} in this picture.",
    "<image>Find {target}.",
)
SEGMENT_ANSWERS = (
    "It is [SEG].",
    "Sure, [SEG].",
    "Sure, it is [SEG].",
    "Sure, the segmentation result is [SEG].",
    "[SEG].",
)
DISEASE_QUESTIONS = (
    TASKS["disease"].instruction,
    "<image>\nIs anything abnormal here? Answer with masks for the parts you name.",
    "<image>\nName the abnormality and segment it.",
)
DISEASE_ANSWERS = ("It is [SEG]. {phrase}.", "[SEG]. {phrase}.")
REPORT_QUESTIONS = (
    TASKS["report"].instruction,
    "<image>\nWrite a short report with masks.",
    "<image>\nDescribe what is abnormal and mark it.",
)
ROI_QUESTIONS = (
    TASKS["roi_class"].instruction,
    "<image>\nName the structure in <region>.",
    "<image>\nIdentify <region>.",
)
ROI_DESCRIPTION_QUESTIONS = (
    TASKS["roi_describe"].instruction,
    "<image>\nTell me about <region>: kind, size, place and brightness.",
)
GROUNDED_VQA_QUESTIONS = (
    TASKS["grounded_vqa"].instruction,
    "<image>\nIs anything wrong with {target}? Answer with masks.",
)
DESCRIBE_QUESTIONS = ("<image>\nDescribe this picture.", "<image>\nWhat does this picture show?")
CLASS_QUESTIONS = {
    "busi-breast-us": ("Is the breast normal, or is there a benign or a malignant lesion?", None),
    "montgomery-cxr": ("Is there evidence of tuberculosis?", {"normal": "no", "tuberculosis": "yes"}),
    "shenzhen-cxr": ("Is there evidence of tuberculosis?", {"normal": "no", "tuberculosis": "yes"}),
    "ph2": ("Which kind of skin lesion is this?", None),
    "wbc-smear": ("Which kind of white blood cell is this?", None),
    "sunnybrook-cardiac": ("Which diagnosis group does this heart belong to?", None),
}
"""Data set -> question about the whole picture, and how its classes are said where not as they are."""

MODALITY_QUESTION = TASKS["modality"].instruction
PART_QUESTION = TASKS["part"].instruction
