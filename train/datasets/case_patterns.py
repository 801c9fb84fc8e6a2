"""Where data sets that come as volumes keep images and masks: a row a data set, read by ``case_folders.py``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Pattern:
    """Which files of a data set are images, and where their masks are.

    Args:
        image: Regular expression of the end of an image's path, in any folder of the source. Groups: ``case`` (in the
            id), and where there are any ``patient`` (keeps cases together), ``sequence`` (in the id) and ``part``.
        mask: Path of the mask, filled with the groups, ``{root}`` (what comes before the expression), ``{folder}`` (the
            image's) and ``{end}``. With "*" there is one file a target, of which the stem is the name; a mask that is
            a folder has one picture a DICOM slice.
        modality: Where all images have the same.
        labels: Target -> label values, where they are the same everywhere.
        end: Regular expression of the suffix.
    """

    image: str
    mask: str
    modality: str = ""
    labels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    end: str = r"\.nii(?:\.gz)?"

    def match(self, path: str) -> re.Match[str] | None:
        return re.fullmatch(rf"(?P<root>(?:.*/)?){self.image}(?P<end>{self.end})", path)


_BTCV = {
    "spleen": (1,), "right kidney": (2,), "left kidney": (3,), "gallbladder": (4,), "oesophagus": (5,), "liver": (6,),
    "stomach": (7,), "aorta": (8,), "inferior vena cava": (9,), "portal vein and splenic vein": (10,),
    "pancreas": (11,), "right adrenal gland": (12,), "left adrenal gland": (13,),
}  # fmt: skip
_AMOS = {
    "spleen": (1,), "right kidney": (2,), "left kidney": (3,), "gallbladder": (4,), "oesophagus": (5,), "liver": (6,),
    "stomach": (7,), "aorta": (8,), "inferior vena cava": (9,), "pancreas": (10,), "right adrenal gland": (11,),
    "left adrenal gland": (12,), "duodenum": (13,), "urinary bladder": (14,), "prostate or uterus": (15,),
}  # fmt: skip
_WORD = {
    "liver": (1,), "spleen": (2,), "left kidney": (3,), "right kidney": (4,), "stomach": (5,), "gallbladder": (6,),
    "oesophagus": (7,), "pancreas": (8,), "duodenum": (9,), "colon": (10,), "small bowel": (11,),
    "adrenal gland": (12,), "rectum": (13,), "urinary bladder": (14,), "left femoral head": (15,),
    "right femoral head": (16,),
}  # fmt: skip
_FLARE22 = {
    "liver": (1,), "right kidney": (2,), "spleen": (3,), "pancreas": (4,), "aorta": (5,), "inferior vena cava": (6,),
    "right adrenal gland": (7,), "left adrenal gland": (8,), "gallbladder": (9,), "oesophagus": (10,), "stomach": (11,),
    "duodenum": (12,), "left kidney": (13,),
}  # fmt: skip
_KITS = {"kidney": (1, 2, 3), "kidney tumour": (2,), "kidney cyst": (3,)}
_ACDC = {"right ventricular cavity": (1,), "left ventricular myocardium": (2,), "left ventricular cavity": (3,)}
_CAMUS = {"left ventricular cavity": (1,), "left ventricular myocardium": (2,), "left atrium": (3,)}
_CHAOS_MR = {"liver": (63,), "right kidney": (126,), "left kidney": (189,), "spleen": (252,)}


def _brats(enhancing: int) -> dict[str, tuple[int, ...]]:
    whole = (1, 2, enhancing)
    core = (1, enhancing)
    return {
        "brain tumour": whole, "tumour core": core, "enhancing tumour": (enhancing,), "peritumoural oedema": (2,),
    }  # fmt: skip


PATTERNS: Mapping[str, tuple[Pattern, ...]] = MappingProxyType(
    {
        "AMOS": (
            Pattern(r"images(?P<part>Tr|Va)/(?P<case>amos_(?:0[0-4]\d\d|0500))",
                    "{root}labels{part}/{case}{end}", "ct", _AMOS),
            Pattern(r"images(?P<part>Tr|Va)/(?P<case>amos_\d{4})",
                    "{root}labels{part}/{case}{end}", "mri", _AMOS),
        ),
        "WORD": (
            Pattern(r"images(?P<part>Tr|Val|Ts)/(?P<case>word_\d{4})",
                    "{root}labels{part}/{case}{end}", "ct", _WORD),
        ),
        "BTCV": (
            Pattern(r"img/img(?P<case>\d{4})", "{root}label/label{case}{end}", "ct", _BTCV),
        ),
        "FLARE22": (
            Pattern(r"images/(?P<case>FLARE22_Tr_\d{4})_0000", "{root}labels/{case}{end}",
                    "ct", _FLARE22),
        ),
        "AbdomenCT-1K": (
            Pattern(r"AbdomenCT-1K-ImagePart\d/(?P<case>Case_\d{5})_0000", "{root}Mask/{case}{end}", "ct",
                    {"liver": (1,), "kidney": (2,), "spleen": (3,), "pancreas": (4,)}),
        ),
        "KiTS": (
            Pattern(r"(?P<case>case_\d{5})/imaging", "{folder}/segmentation{end}", "ct",
                    _KITS),
        ),
        "LiTS": (
            Pattern(r"volume-(?P<case>\d+)", "{folder}/segmentation-{case}{end}", "ct",
                    {"liver": (1, 2), "liver tumour": (2,)}),
        ),
        "CHAOS": (
            Pattern(r"(?P<case>CT/\d+)/DICOM_anon", "{folder}/Ground", "ct", {"liver": (1, 255)}, ""),
            Pattern(r"(?P<case>MR/\d+)/T1DUAL/DICOM_anon/(?P<sequence>InPhase|OutPhase)",
                    "{root}{case}/T1DUAL/Ground", "mri", _CHAOS_MR, ""),
            Pattern(r"(?P<case>MR/\d+)/(?P<sequence>T2SPIR)/DICOM_anon", "{folder}/Ground", "mri", _CHAOS_MR, ""),
        ),
        "ACDC": (
            Pattern(r"(?P<patient>patient\d{3})/(?P<case>patient\d{3}_frame\d+)",
                    "{folder}/{case}_gt{end}", "mri", _ACDC),
        ),
        "CAMUS": (
            Pattern(r"(?P<patient>patient\d{4})/(?P<case>patient\d{4}_[24]CH_E[DS])",
                    "{folder}/{case}_gt{end}", "ultrasound", _CAMUS),
        ),
        "BraTS to 2021": (
            Pattern(r"(?P<case>BraTS[^/]+)/(?P=case)_(?P<sequence>t1|t1ce|t2|flair)",
                    "{folder}/{case}_seg{end}", "mri", _brats(4)),
        ),
        "BraTS from 2023": (
            Pattern(r"(?P<case>BraTS-[^/]+)/(?P=case)-(?P<sequence>t1n|t1c|t2w|t2f)",
                    "{folder}/{case}-seg{end}", "mri", _brats(3)),
        ),
        "TotalSegmentator, AbdomenAtlas": (
            Pattern(r"(?P<case>[^/]+)/ct", "{folder}/segmentations/*{end}", "ct"),
            Pattern(r"(?P<case>[^/]+)/mri", "{folder}/segmentations/*{end}", "mri"),
        ),
        "AutoPET": (
            Pattern(r"(?P<case>(?P<patient>[^/]+)/[^/]+)/SUV", "{folder}/SEG{end}", "pet",
                    {"tumour": (1,)}),
        ),
        "COVID-19-20": (
            Pattern(r"(?P<case>volume-covid19-[^/]+)_ct", "{folder}/{case}_seg{end}", "ct",
                    {"covid-19 infection": (1,)}),
        ),
        "SLIVER07": (
            Pattern(r"liver-orig(?P<case>\d{3})", "{folder}/liver-seg{case}{end}", "ct", {"liver": (1, 255)}, r"\.mhd"),
        ),
        "image and _seg": (
            Pattern(r"(?P<case>[^/]+?)(?:_image|_img|_ct|_mr|_mri)", "{folder}/{case}_seg{end}"),
        ),
        "image and label": (
            Pattern(r"(?P<case>[^/]+)/(?:image|img)", "{folder}/label{end}"),
        ),
        "images and labels": (
            Pattern(r"images/(?P<case>[^/]+?)(?:_0000)?", "{root}labels/{case}{end}"),
        ),
    }
)  # fmt: skip
"""Name -> patterns, tried in order; the first row with an image in the source is its layout.

KiTS19 marks no cysts: give the labels {"kidney": (1, 2), "kidney tumour": (2,)} for it. CHAOS ships DICOM series with a
PNG a slice. The last three rows name no labels; the job has to.
"""
