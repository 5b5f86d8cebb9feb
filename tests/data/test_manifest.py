import os
from pathlib import Path

import pytest

from utils.data.manifest import locate, read_manifest, utterances_of
from utils.errors import InputError

HEADER = "audio_file,raw_text,label\n"


def write_csv(folder: Path, text: str | bytes, name: str = "m.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return folder / name


def touch(root: Path, *files: str) -> list[Path]:
    for file in files:
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    return [root / file for file in files]


# ---- read_manifest ---------------------------------------------------------------------------------------------------

BAD = {
    "empty file": ("", r"no rows; expected a header with audio_file, raw_text, label"),
    "header alone": (HEADER, r"no rows"),
    "no label column": (
        "audio_file,raw_text,emotion\na.wav,Hi,1\n",
        r"needs exactly one column label \(it has audio_file, raw_text, emotion\)",
    ),
    "semicolons": (
        "audio_file;raw_text;label\na.wav;Hi;1\n",
        r"needs exactly one column audio_file \(it has audio_file;raw_te",
    ),
    "text column twice": ("audio_file,raw_text,label,raw_text\na,b,c,d\n", r"needs exactly one column raw_text"),
    "speaker column twice": ("audio_file,raw_text,label,speaker,speaker\na,b,c,d,e\n", r".*speaker"),
    "too many values": (
        f"{HEADER}a.wav,Hi,1\nb.wav,Well, hi,1\n",
        r"line 3: 4 values for 3 columns \(a text with a comma needs quotes\)",
    ),
    "too few values": (f"{HEADER}a.wav,Hi,1\n\nb.wav,Hi\n", r"line 4: 2 values for 3 columns"),
    "after a text of two lines": (f'{HEADER}a.wav,"Hi\nthere",1\nb.wav,1\n', r"line 4: 2 values for 3 columns"),
    "no recording": (f"{HEADER}a.wav,Hi,1\n ,Hi,1\n", r"line 3: audio_file is empty"),
    "no label": (f"{HEADER}a.wav,Hi,1\nb.wav,Hi,\n", r"line 3: label is empty"),
    "quote never closed": (f'{HEADER}a.wav,"Hi,1\nb.wav,Hi,1\n', "line 2: not CSV"),
    "words after a quote": (f'{HEADER}a.wav,Hi,1\nb.wav,"Hi" there,1\nc.wav,Hi,1\n', "line 3: not CSV"),
    "Windows-1252": (f"{HEADER}a.wav,It’s,1\n".encode("cp1252"), "line 2: not UTF-8"),
    "UTF-16": (f"{HEADER}a.wav,Hi,1\n".encode("utf-16"), "line 1: not UTF-8"),
}


@pytest.mark.parametrize("text, message", BAD.values(), ids=BAD)
def test_malformed_manifests_are_named(tmp_path, text, message):
    path = write_csv(tmp_path, text)
    with pytest.raises(InputError, match=rf"^{path}: {message}") as caught:
        read_manifest(path)
    assert "\n" not in str(caught.value)


def test_missing_manifest_is_named(tmp_path):
    with pytest.raises(InputError, match=r"/m\.csv: no such file$"):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize("word", ["NA", "null", "nan", "None", "N/A", "", "007", "1e3", "True"])
def test_values_are_text_without_type_inference(tmp_path, word):
    path = write_csv(tmp_path, f"audio_file,raw_text,label,speaker\nNA,{word},{word or 'x'},{word}\n")
    row = read_manifest(path).iloc[0]
    assert row[["audio_file", "raw_text", "label", "speaker"]].tolist() == ["NA", word, word or "x", word]


def test_quoted_texts_may_contain_commas_quotes_and_line_breaks(tmp_path):
    path = write_csv(tmp_path, f'{HEADER}"a, b.wav","He said ""hi"",\nand left",1\n\nc.wav, Yes ,0\n')
    table = read_manifest(path)
    assert table["audio_file"].tolist() == ["a, b.wav", "c.wav"]
    assert table["raw_text"].tolist() == ['He said "hi",\nand left', "Yes"]
    assert table["where"].iloc[1] == f"{path}: line 5"


def test_bom_line_ends_spaces_and_column_order_are_irrelevant(tmp_path):
    text = "audio_file,raw_text,label,split\nü.wav,Hi,1,train\n"
    plain = read_manifest(write_csv(tmp_path, text, "plain.csv"))
    windows = "\ufeff label , split,raw_text,audio_file\r\n1 ,train ,Hi, ü.wav\r\n"
    other = read_manifest(write_csv(tmp_path, windows, "windows.csv"))
    assert other.drop(columns="where").equals(plain.drop(columns="where"))


def test_other_columns_are_ignored(tmp_path):
    path = write_csv(tmp_path, "where,problem,audio_file,raw_text,label,dialogue,emotion,x,x\na,b,c.wav,Hi,1,d,e,f,g\n")
    table = read_manifest(path)
    assert sorted(table) == ["audio_file", "dialogue", "label", "raw_text", "where"]
    assert table["where"].tolist() == [f"{path}: line 2"]


# ---- utterances_of ---------------------------------------------------------------------------------------------------


def emotions(folder: Path, dataset: str, *labels: str) -> list[str]:
    path = write_csv(folder, HEADER + "".join(f"{i}.wav,Hi,{label}\n" for i, label in enumerate(labels)))
    return utterances_of([path], dataset, None)["emotion"].tolist()


def test_numbers_are_classes_of_a_known_dataset(tmp_path):
    names = ["anger", "happiness", "neutral", "sadness"]
    assert emotions(tmp_path, "IEMOCAP", "0", "1", "2", "3") == names
    assert emotions(tmp_path, "IEMOCAP", "0.0", "1.", "2.00", "03") == names
    assert emotions(tmp_path, "ESD", "0", "1", "2", "3", "4") == ["neutral", "angry", "happy", "sad", "surprise"]


def test_labels_other_than_whole_numbers_are_kept(tmp_path):
    words = ["Anger", "exc", "2.5", "-1", "1e0", "class 2", "NA"]
    assert emotions(tmp_path, "IEMOCAP", *words) == words
    assert emotions(tmp_path, "MINE", *words) == words


def test_numbers_of_an_unknown_dataset_are_normalised(tmp_path):
    assert emotions(tmp_path, "MINE", "2.0", "2", "02", "17") == ["2", "2", "2", "17"]


@pytest.mark.parametrize("label", ["4", "4.0"])
def test_class_number_out_of_range(tmp_path, label):
    message = r"m\.csv: line 3: label 4 is out of range \(4 classes, 0 to 3: anger, happiness, neutral, sadness\)$"
    with pytest.raises(InputError, match=message):
        emotions(tmp_path, "IEMOCAP", "0", label)


def test_groups_are_derived_from_names_unless_given(tmp_path):
    touch(tmp_path, "Ses01F_impro04_M012.wav", "Ses02F_impro04_F001.wav")
    lines = "Ses01F_impro04_M012.wav,Hi,0{}\nSes02F_impro04_F001.wav,Hi,1{}\n"
    plain = write_csv(tmp_path, "audio_file,raw_text,label\n" + lines.format("", ""))
    table = utterances_of([plain], "IEMOCAP", None)
    assert table["speaker"].tolist() == ["Ses01M", "Ses02F"]
    assert table["session"].tolist() == ["Ses01", "Ses02"]
    assert table["dialogue"].tolist() == ["Ses01F_impro04", "Ses02F_impro04"]
    own = write_csv(tmp_path, "audio_file,raw_text,label,session\n" + lines.format(",one", ",two"), "own.csv")
    table = utterances_of([own], "IEMOCAP", None)
    assert table["speaker"].tolist() == ["Ses01M", "Ses02F"]
    assert table["session"].tolist() == ["one", "two"]
    table = utterances_of([plain], "MINE", None)
    assert (table[["speaker", "session", "dialogue"]] == "").all(axis=None)


def test_manifests_with_and_without_a_group(tmp_path):
    touch(tmp_path, "0011_000001.wav", "0012_000001.wav")
    first = write_csv(tmp_path, "audio_file,raw_text,label,speaker\n0011_000001.wav,Hi,0,Ann\n", "a.csv")
    second = write_csv(tmp_path, "audio_file,raw_text,label\n0012_000001.wav,Hi,1\n", "b.csv")
    paths = [first, second]
    assert utterances_of(paths, "ESD", None)["speaker"].tolist() == ["Ann", "0012"]
    assert utterances_of(paths, "MINE", None)["speaker"].tolist() == ["Ann", ""]


@pytest.mark.parametrize("path", ["/home/them/{}.wav", r"C:\data\{}.wav"])
def test_missing_recordings_keep_their_groups(tmp_path, path):
    # needed for the split, which must not change when the file is repaired
    csv = write_csv(tmp_path, HEADER + path.format("Ses01F_impro04_M012") + ",Hi,0\n")
    row = utterances_of([csv], "IEMOCAP", tmp_path).iloc[0]
    assert row["problem"] == f"no such recording in {tmp_path}"
    assert (row["speaker"], row["session"], row["dialogue"]) == ("Ses01M", "Ses01", "Ses01F_impro04")


def test_gender_is_given_or_derived_and_written_in_one_way(tmp_path):
    given = ["female", "Male", "f", "m", "F", "diverse", ""]
    lines = "".join(f"{i}.wav,Hi,0,{gender}\n" for i, gender in enumerate(given))
    path = write_csv(tmp_path, "audio_file,raw_text,label,gender\n" + lines + "Ses01F_impro04_M012.wav,Hi,1,\n")
    genders = ["F", "M", "F", "M", "F", "diverse", ""]
    assert utterances_of([path], "IEMOCAP", None)["gender"].tolist() == [*genders, "M"]
    assert utterances_of([path], "MINE", None)["gender"].tolist() == [*genders, ""]


def test_dialogues_that_differ_by_case_are_two(tmp_path):
    """The names may be those of videos."""
    path = write_csv(tmp_path, "audio_file,raw_text,label,dialogue\na.wav,Hi,0,dQw4\nb.wav,Hi,1,dqw4\n")
    assert utterances_of([path], "MINE", None)["dialogue"].tolist() == ["dQw4", "dqw4"]


@pytest.mark.parametrize("column", ["speaker", "session"])
def test_groups_that_differ_by_case_are_refused(tmp_path, column):
    rows = "".join(f"{i}.wav,Hi,{i % 2},{name}\n" for i, name in enumerate(("Anna", "Bo", "anna", "Bo")))
    path = write_csv(tmp_path, f"audio_file,raw_text,label,{column}\n{rows}")
    with pytest.raises(InputError, match=rf"^{path}: line 4: {column} 'anna' is spelled 'Anna' in {path}: line \d$"):
        utterances_of([path], "MINE", None)


ALIKE = ("Zo\u00e9 A", "Zoe\u0301 A", "Ｚｏé A", "Zoé\u00a0A", "Zoé  A", "Zoé\u3000A", '"Zoé\nA"')


@pytest.mark.parametrize("typed", ALIKE, ids=ascii)
def test_names_that_look_the_same_are_one(tmp_path, typed):
    text = f"audio_file,raw_text,label,speaker,session,dialogue\nx.wav,Hi,{typed},{typed},{typed},{typed}\n"
    path = write_csv(tmp_path, text)
    row = utterances_of([path], "MINE", None).iloc[0]
    assert row[["emotion", "speaker", "session", "dialogue"]].tolist() == ["Zoé A"] * 4


def test_transcripts_and_names_of_files_are_not_normalised(tmp_path):
    touch(tmp_path, "e\u0301.wav", "ａ  b.wav")
    path = write_csv(tmp_path, f"{HEADER}e\u0301.wav,ｅ\u0301  x,1\nａ  b.wav,Hi,0\n")
    table = utterances_of([path], "MINE", None)
    assert table["audio_file"].tolist() == [str(tmp_path / "e\u0301.wav"), str(tmp_path / "ａ  b.wav")]
    assert table["raw_text"].tolist() == ["ｅ\u0301  x", "Hi"]


@pytest.mark.parametrize("column", ["label", "speaker", "session", "dialogue", "split"])
def test_cells_that_cannot_be_printed_are_refused(tmp_path, column):
    header = ["audio_file", "raw_text", *dict.fromkeys(["label", column])]
    row = ["b.wav", "Hi", *(["\x1b[31mx"] if column == "label" else ["1", "\x1b[31mx"])]
    good = ["a.wav", "Hi", *"01"[: len(row) - 2]]
    path = write_csv(tmp_path, "".join(",".join(each) + "\n" for each in (header, good, row)))
    with pytest.raises(InputError, match=rf"^{path}: line 3: {column} '\\x1b\[31mx' is not printable$"):
        read_manifest(path)


def test_a_recording_that_cannot_be_printed_is_refused_with_its_line(tmp_path):
    path = write_csv(tmp_path, f"{HEADER}a.wav,Hi,0\nb\x1b[2J.wav,Hi,1\n")
    with pytest.raises(InputError, match=rf"^{path}: line 3: 'b\\x1b\[2J\.wav': the file name is not printable"):
        utterances_of([path], "MINE", None)


def test_a_header_is_shown_without_its_escape_sequences(tmp_path):
    path = write_csv(tmp_path, "audio_file,raw_text,\x1b]0;x\na.wav,Hi,0\n")
    with pytest.raises(
        InputError, match=r"needs exactly one column label \(it has audio_file, raw_text, \\x1b\]0;x\)$"
    ):
        read_manifest(path)


# ---- locate ----------------------------------------------------------------------------------------------------------


def test_paths_of_another_machine_are_found_by_name(tmp_path):
    corpus = tmp_path / "data" / "ESD"
    wanted, *_ = touch(corpus, "0011/Angry/train/0011_000351.wav", "0011/Sad/0011_001051.wav")
    for path in (
        "/home/them/EmoData/0011/Angry/0011_000351.wav",
        r"D:\EmoData\0011\Angry\0011_000351.wav",
        "elsewhere/0011_000351.wav",
        "./0011_000351.wav",
    ):
        assert locate([path], corpus, tmp_path) == [(wanted, "")]


def test_an_existing_path_has_precedence(tmp_path):
    corpus, base = tmp_path / "corpus", tmp_path / "csv"
    touch(corpus, "x/a.wav", "here/a.wav", "x/b.wav")
    touch(base, "x/a.wav", "b.wav", "c.wav")
    outside, *_ = touch(tmp_path, "outside/x/a.wav")
    found = locate(["x/a.wav", str(outside), "b.wav", "c.wav"], corpus, base)
    assert found == [(corpus / "x/a.wav", ""), (outside, ""), (base / "b.wav", ""), (base / "c.wav", "")]
    assert locate(["x/a.wav"], None, base) == [(base / "x/a.wav", "")]


def test_found_paths_are_absolute(tmp_path, monkeypatch):
    touch(tmp_path, "corpus/x/a.wav", "csv/b.wav")
    monkeypatch.chdir(tmp_path)
    found = locate(["x/a.wav", "/gone/x/a.wav", "b.wav"], Path("corpus"), Path("csv"))
    expected = [tmp_path / "corpus/x/a.wav", tmp_path / "corpus/x/a.wav", tmp_path / "csv/b.wav"]
    assert found == [(path, "") for path in expected]


def test_the_copy_with_the_longest_common_suffix_is_used(tmp_path):
    files = touch(tmp_path, "one/happy/01.wav", "two/happy/01.wav", "two/sad/01.wav", "01.wav")
    found = locate(["/them/two/happy/01.wav", "/them/sad/01.wav", r"E:\one\happy\01.wav"], tmp_path, tmp_path)
    assert found == [(files[1], ""), (files[2], ""), (files[0], "")]


def test_ambiguous_copies_are_refused(tmp_path):
    touch(tmp_path, "one/happy/01.wav", "two/happy/01.wav", "two/sad/01.wav")
    [happy] = locate(["/them/happy/01.wav"], tmp_path, tmp_path)
    [any_of_three] = locate(["/them/01.wav"], tmp_path, tmp_path)
    assert happy == (Path("/them/happy/01.wav"), f"2 recordings have this name in {tmp_path}")
    assert any_of_three == (Path("/them/01.wav"), f"3 recordings have this name in {tmp_path}")


def test_the_parent_folder_must_match_unless_names_are_unique(tmp_path):
    # one/01.wav is missing; two/01.wav is another recording
    touch(tmp_path, "two/01.wav")
    one, two = locate(["/them/one/01.wav", "/them/two/01.wav"], tmp_path, tmp_path)
    assert two == (tmp_path / "two" / "01.wav", "")
    assert one[1] == f"no such recording in {tmp_path}"


def test_a_recording_in_two_rows_is_refused(tmp_path):
    touch(tmp_path, "x/a.wav", "y/b.wav")
    csv = write_csv(tmp_path, f"{HEADER}x/a.wav,Hi,0\ny/b.wav,Hi,0\ny/../x/a.wav,Ho,1\n")
    with pytest.raises(InputError, match=r"m\.csv: line 4: .*a\.wav: the same recording as .*m\.csv: line 2$"):
        utterances_of([csv], "MINE", tmp_path)


def test_missing_recordings_are_reported_one_by_one(tmp_path):
    folder, *_ = touch(tmp_path, "a.wav/x")  # a folder, not a recording
    assert locate(["b.wav", "a.wav", "/"], tmp_path, tmp_path) == [
        (Path("b.wav"), f"no such recording in {tmp_path}"),
        (Path("a.wav"), f"no such recording in {tmp_path}"),
        (Path("/"), f"no such recording in {tmp_path}"),
    ]
    assert folder.is_file()
    [(path, problem)] = locate(["/them/b.wav"], None, tmp_path)
    assert (path, problem) == (Path("/them/b.wav"), "no such recording; use --corpus_dir to name the folder to search")


def test_an_impossible_file_name_is_missing(tmp_path):
    # swapped columns: a transcript instead of a path
    for name in ("Well. " * 100, "a\0.wav"):
        assert locate([name], tmp_path, tmp_path)[0][1] == f"no such recording in {tmp_path}"


def test_without_corpus_dir_nothing_is_searched(tmp_path):
    touch(tmp_path, "x/a.wav")
    assert locate(["/them/x/a.wav"], None, tmp_path)[0][1] != ""


def test_linked_folders_are_searched_once_and_without_end(tmp_path):
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    real, linked = touch(corpus, "s1/a.wav")[0], touch(elsewhere, "b.wav")[0]
    (corpus / "a_link").symlink_to(corpus / "s1")  # visited before s1, but s1 is the real name of the folder
    for name in ("one", "two"):
        (corpus / name).symlink_to(elsewhere)
    (elsewhere / "up").symlink_to(corpus)
    found = locate(["/them/s1/a.wav", "/them/b.wav"], corpus, tmp_path)
    assert found[0] == (real, "")
    assert found[1][0].samefile(linked)
    assert found[1][1] == ""


def refuse(folder):
    """Path.is_file and os.scandir below the folder, for a user without permission. root can read everything."""

    def refusing(call):
        def refused(path, *args):
            if folder in (Path(path), *Path(path).parents):
                raise PermissionError(13, "Permission denied", str(path))
            return call(path, *args)

        return refused

    return refusing


def test_a_recording_that_may_not_be_read_is_its_rows_problem(tmp_path, monkeypatch):
    good, secret = touch(tmp_path, "ok/b.wav", "secret/a.wav")
    monkeypatch.setattr(Path, "is_file", refuse(tmp_path / "secret")(Path.is_file))
    monkeypatch.setattr(os, "scandir", refuse(tmp_path / "secret")(os.scandir))
    there, searched, other, absent = locate(["secret/a.wav", "/them/a.wav", "b.wav", str(secret)], tmp_path, tmp_path)
    problem = f"no such recording in {tmp_path}"
    assert there == (Path("secret/a.wav"), f"{problem} ({secret}: Permission denied)")
    assert searched == (Path("/them/a.wav"), f"{problem} ({secret.parent}: Permission denied)")
    assert other == (good, "")
    assert absent == (secret, f"{problem} ({secret}: Permission denied)")
