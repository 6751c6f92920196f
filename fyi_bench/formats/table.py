"""The table of layouts in docs/formats.md, written by `python -m fyi_bench.formats.table`.

What is read and written is asked of the formats; who publishes a layout, by which protocol its authors evaluate, and
which test holds it stand here.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from fyi_bench.files import between, write_bytes
from fyi_bench.formats.base import FORMATS, formats_that

BEGIN, END = "<!-- layouts: begin -->", "<!-- layouts: end -->"
_HEAD = ("layout", "published by", "read", "evaluated by its own protocol", "written", "held by")


@dataclass(frozen=True)
class Facts:
    """makers: who publishes it; test: file and function that read one; protocols: of its authors, where they are here.

    layout, read: of what is no `Format`; '' = the title of the format, and whether it reads.
    """

    makers: str
    test: str
    protocols: tuple[str, ...] = ()
    layout: str = ""
    read: str = ""


# by name of the format, in the order of the table; what is no format comes last
LAYOUTS: dict[str, Facts] = {
    "hub": Facts("this project", "test_hub.py::test_datasets_reads_what_was_exported", ("paper",)),
    "fyi-bench": Facts("this project", "test_importers.py::test_a_set_of_ours_comes_back_whole", ("paper",)),
    "dc": Facts(
        "DC, DSA, DM, DC-Bench",
        "test_importers.py::test_dc_takes_the_last_experiment_and_says_how_many",
        ("ddranking-dc", "ddranking-dsa", "ddranking-dm"),
    ),
    "dm-continual": Facts("DM", "test_importers.py::test_dm_continual_steps_are_joined_or_chosen"),
    "cafe": Facts("CAFE", "test_importers.py::test_cafe_labels_of_32_bits"),
    "datadam": Facts("DataDAM", "test_importers.py::test_datadam_both_layouts", ("legacy-datadam",)),
    "idm": Facts("IDM", "test_importers_security.py::test_malicious_files_are_refused_and_run_nothing"),
    "mtt": Facts(
        "MTT, TESLA, FYI",
        "test_importers.py::test_mtt_folder_takes_the_best_then_the_latest",
        ("legacy-mtt", "ddranking-mtt"),
    ),
    "ftd": Facts("FTD", "test_importers.py::test_ftd_running_mean", ("legacy-ftd",)),
    "datm": Facts(
        "DATM", "test_importers.py::test_datm_logits_and_step_size", ("datm", "legacy-datm", "ddranking-datm")
    ),
    "dc-bench": Facts("DC-Bench", "test_importers.py::test_dc_bench_coresets"),
    "dd-ranking": Facts("DD-Ranking", "test_importers.py::test_dd_ranking_with_soft_labels_and_without"),
    "idc": Facts(
        "IDC, NCFM", "test_importers.py::test_idc_factor_from_notes_name_or_caller", ("idc", "legacy-idc", "ncfm")
    ),
    "dream": Facts("DREAM", "test_importers.py::test_idc_factor_from_notes_name_or_caller", ("idc",)),
    "haba": Facts("HaBa", "test_importers.py::test_haba_bases_are_decoded_by_all_hallucinators", ("legacy-haba",)),
    "speed": Facts("SPEED", "test_formats_decoded.py::test_speed_is_read_into_epitomes", ("legacy-speed",)),
    "fred": Facts("FreD", "test_formats_decoded.py::test_fred_keeps_its_coefficients"),
    "kip": Facts(
        "KIP",
        "test_formats_decoded.py::test_targets_stay_targets_in_the_space_of_their_makers",
        ("legacy-kip-network",),
    ),
    "frepo": Facts("FRePo", "test_formats_decoded.py::test_targets_stay_targets_in_the_space_of_their_makers"),
    "dd": Facts("the first DD", "test_formats_decoded.py::test_the_first_dd_has_its_steps"),
    "image-folder": Facts(
        "SRe2L, CDA, RDED, EDC, DD-Ranking and others",
        "test_formats_hub.py::test_zips_of_sre2l_have_their_class_names_put_back",
        ("sre2l", "rded", "edc", "g-vbsm", "minimax"),
    ),
    "parquet": Facts("rethinkdc, sets on the Hub", "test_formats_hub.py::test_sets_of_rethinkdc", ("sre2l", "rded")),
    "arrow": Facts("sets on the Hub", "test_formats_hub.py::test_save_to_disk_folders_are_read"),
    "tensors": Facts("anybody", "test_importers.py::test_plain_tensors"),
    "fkd": Facts(
        "SRe2L, CDA, LPLD, DWA, G-VBSM, EDC",
        "test_fkd.py::test_a_batch_is_what_was_saved",
        ("sre2l", "edc"),
        "soft labels epoch_&lt;e&gt;/batch_&lt;b&gt;.tar, beside their images",
        "yes",
    ),
    "archives": Facts(
        "anybody",
        "test_formats_packed.py::test_pictures_in_archives_are_those_of_the_folder",
        (),
        ".zip, .tar, .tar.gz, .tar.xz, .tar.bz2 of any layout",
        "yes",
    ),
    "hf": Facts(
        "anybody",
        "test_hub_download.py::test_a_repository_is_fetched_once_and_read_without_a_network",
        (),
        "hf:OWNER/NAME[/FILE][@REVISION], of any layout",
        "yes",
    ),
    "rtp": Facts(
        "RTP",
        "test_method_rtp.py::test_images_are_the_published_ones",
        (),
        "RTP: its code saves no set; one made here is in our own layout",
        "no file",
    ),
    "pickle": Facts(
        "IDM",
        "test_importers_security.py::test_malicious_files_are_refused_and_run_nothing",
        (),
        "acc_*.pkl and other pickles",
        "refused",
    ),
}


def lines() -> list[str]:
    """The table in Markdown."""
    reads, writes = formats_that("read"), formats_that("write")
    found = [_row(_HEAD), _row(["---"] * len(_HEAD))]
    for name, facts in LAYOUTS.items():
        title = facts.layout or (FORMATS.get(name).__doc__ or name).partition("\n")[0]
        if not facts.layout:
            title = (
                f"`{name}`: {title}".replace("<", "&lt;").replace(">", "&gt;").replace("|", "\\|").replace("*", "\\*")
            )
        reading, writing = facts.read or _yes(name in reads), _yes(name in writes)
        protocols = ", ".join(f"`{each}`" for each in facts.protocols) or "no"
        found.append(_row([title, facts.makers, reading, protocols, writing, f"`{facts.test}`"]))
    return found


def _row(entries: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(entries)} |"


def _yes(whether: bool) -> str:
    return "yes" if whether else "no"


def with_table(page: str) -> str:
    """The page with the table between its marks. Raises ValueError where it has no marks."""
    return between(page, (BEGIN, END), "\n".join(lines()))


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/formats.md")
    write_bytes(place, with_table(place.read_text(encoding="utf-8")).encode())
