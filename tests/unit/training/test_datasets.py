"""Published data sets in miniature: splits, labels, protocols, and what is said of what is missing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from embedkit.errors import BadSource, UnknownName
from embedkit.training.datasets.contract import PICTURE, PROTOCOLS, SKETCH
from embedkit.training.datasets.open import check_dataset, open_dataset
from embedkit.training.datasets.registry import DATASETS
from tests.unit.training import trees


def names_of(split):
    return [Path(path).name for path in split.paths]


@pytest.mark.parametrize("name", trees.BUILDERS)
def test_a_data_set_is_known_by_its_files_and_every_array_fits_its_pictures(name, tmp_path):
    data = open_dataset(trees.BUILDERS[name](tmp_path))
    assert data.name == name
    assert data.protocol in PROTOCOLS
    for split in data.splits.values():
        assert all(Path(path.partition("#")[0]).is_file() for path in split.paths)
        for column in (split.labels, split.cameras, split.categories, split.boxes, split.domains):
            assert column is None or (len(column) == len(split) and column.dtype == np.int64)
    if len(data.train):
        assert sorted(set(data.train.labels)) == list(range(len(data.train.names)))
        assert data.train.concepts is not None or len(data.train.names) == data.train.classes


def test_every_row_of_the_registry_names_a_reader_a_protocol_and_an_owner():
    assert len({one.name for one in DATASETS}) == len(DATASETS)
    for one in DATASETS:
        assert one.protocol in PROTOCOLS
        assert one.owner or one.name in ("captions", "csv", "folder")


def test_cub_splits_by_class_not_by_the_owners_split_of_pictures(tmp_path):
    data = open_dataset(trees.cub200(tmp_path))
    assert data.train.names == ("001.Bird_1", "100.Bird_100")
    assert data.query.names == ("101.Bird_101", "200.Bird_200")
    assert data.train.labels.tolist() == data.query.labels.tolist() == [0, 0, 1, 1]


def test_cars_takes_classes_1_to_98_whatever_the_test_flag_says(tmp_path):
    data = open_dataset(trees.cars196(tmp_path))
    assert names_of(data.train) == ["000001.jpg", "000002.jpg"]
    assert names_of(data.query) == ["000003.jpg", "000004.jpg", "000005.jpg"]
    assert data.query.names == ("Make Model 99",)


def test_products_with_spaces_and_the_wrong_case_are_found(tmp_path):
    data = open_dataset(trees.sop(tmp_path))
    assert names_of(data.train) == ["11_0.JPG", "11 1.JPG"]
    assert names_of(data.query) == ["22_0.jpg", "33_0.JPG"]
    assert data.query.names == ("11319", "11320")
    assert not data.missing


def test_inshop_queries_and_gallery_share_their_labels(tmp_path):
    data = open_dataset(trees.inshop(tmp_path))
    assert data.protocol == "query-gallery"
    assert data.train.classes == 1
    assert data.query.labels.tolist() == data.gallery.labels.tolist() == [0, 1]
    assert data.query.names == ("id_00000002", "id_00000003")


def test_a_first_line_that_counts_other_rows_is_a_problem(tmp_path):
    trees.inshop(tmp_path)
    table = tmp_path / "Eval" / "list_eval_partition.txt"
    table.write_text(table.read_text().replace("6\n", "52712\n", 1))
    assert any("says 52,712 rows and has 6" in problem for problem in check_dataset(tmp_path).problems)


def test_consumers_ask_and_shops_answer_each_picture_once(tmp_path):
    data = open_dataset(trees.consumer2shop(tmp_path))
    assert names_of(data.query) == ["comsumer_02.jpg", "comsumer_03.jpg", "comsumer_01.jpg"]
    assert data.query.labels.tolist() == [0, 0, 1]
    assert data.gallery.labels.tolist() == [0, 1]
    assert [data.categories[place] for place in data.gallery.categories] == ["CLOTHING/Coat", "DRESSES/Lace Dress"]
    assert len(data.train) == 2


def test_street_photos_have_boxes_and_those_that_are_gone_are_named(tmp_path):
    data = open_dataset(trees.street2shop(tmp_path))
    assert data.categories == ("bags", "dresses")
    assert data.query.boxes.tolist() == [[1, 2, 4, 5], [1, 2, 4, 5]]
    assert data.missing == ("photos/000000003",)
    assert names_of(data.train) == ["000000004.png", "000000001.jpg"]
    assert data.train.boxes.tolist() == [[1, 2, 4, 5], [0, 0, 0, 0]]
    assert dict(zip(names_of(data.gallery), data.gallery.categories.tolist(), strict=True))["2.JPEG"] == 1


def test_pairs_of_faces_alternate_in_each_fold(tmp_path):
    data = open_dataset(trees.lfw(tmp_path))
    assert data.pairs.same.tolist() == [True, False, True, False]
    assert data.pairs.folds.tolist() == [0, 0, 1, 1]
    first = [names_of(data.query)[row] for row in data.pairs.first]
    assert first == ["Ann_B_0001.jpg", "Cy_0001.jpg", "Jean-Luc_P_0001.jpg", "Ann_B_0001.jpg"]
    assert len(data.query) == 6


def test_pairs_that_lost_a_picture_are_left_out_and_counted(tmp_path):
    trees.lfw(tmp_path)
    (tmp_path / "lfw" / "Cy" / "Cy_0001.jpg").unlink()
    data = open_dataset(tmp_path)
    assert data.pairs.same.tolist() == [True, True]
    assert [names_of(data.query)[row] for row in data.pairs.second] == ["Ann_B_0002.jpg", "Jean-Luc_P_0002.jpg"]
    assert data.problems == ("2 of 4 pairs lack a picture",)


def test_pairs_of_which_none_is_whole_are_refused(tmp_path):
    trees.lfw(tmp_path)
    for name in ("Ann_B/Ann_B_0002", "Cy/Cy_0001", "Jean-Luc_P/Jean-Luc_P_0002"):
        (tmp_path / "lfw" / f"{name}.jpg").unlink()
    with pytest.raises(BadSource, match="no pair of which both pictures are there, 3 pictures that its lists name"):
        open_dataset(tmp_path)


def test_a_list_of_pairs_that_is_cut_short_is_refused(tmp_path):
    trees.lfw(tmp_path)
    (tmp_path / "pairs.txt").write_text("10\t300\nAnn_B\t1\t2\n")
    with pytest.raises(BadSource, match="1 pairs, not the 6,000 of its header"):
        open_dataset(tmp_path)


def test_market_keeps_junk_and_distractors_in_the_gallery_only(tmp_path):
    data = open_dataset(trees.market1501(tmp_path))
    assert sorted(data.gallery.labels.tolist()) == [-1, 0, 3, 3]
    assert data.gallery.classes == data.query.classes == 1
    assert data.query.cameras.tolist() == [1]
    assert data.train.labels.tolist() == [0, 0, 1]
    assert data.train.names == ("2", "7")
    assert data.train.classes == 2


def test_veri_reads_lists_with_a_byte_order_mark_and_windows_line_ends(tmp_path):
    data = open_dataset(trees.veri776(tmp_path))
    assert data.gallery.cameras.tolist() == [2, 3]
    assert (len(data.train), len(data.query)) == (1, 1)


def test_the_three_galleries_of_vehicleid_are_parts_of_one_split(tmp_path):
    data = open_dataset(trees.vehicleid(tmp_path))
    assert [(part.name, len(part.rows)) for part in data.subsets] == [("800", 4), ("1600", 6), ("2400", 8)]
    assert len(data.query) == 8
    assert data.query.labels[data.subsets[0].rows].tolist() == [0, 0, 1, 1]


def test_emoji_are_permuted_by_seed_0_and_halved(tmp_path):
    data = open_dataset(trees.emoji(tmp_path))
    order = np.random.default_rng(0).permutation(5)
    by_sort_order = ["name4", "name3", "name2", "name1", "name0"]
    assert data.train.names == tuple(by_sort_order[row] for row in order[:2])
    assert data.query.names == tuple(by_sort_order[row] for row in order[2:])
    assert len(data.train) + len(data.query) == 4 * 5 - 1


def test_outlines_of_the_unseen_half_ask_for_all_their_coloured_drawings(tmp_path):
    data = open_dataset(trees.openmoji(tmp_path))
    every = ["1F590-1F3FB", "1F601", "1F602", "1F603", "1F604"]
    order = [every[place] for place in np.random.default_rng(0).permutation(5)]
    assert data.train.names == tuple(sorted(order[:2]))
    assert data.train.domains.tolist() == [SKETCH, PICTURE] * 2
    assert data.query.names == data.gallery.names == tuple(sorted(order[2:]))
    assert [Path(path).parent.name for path in data.query.paths] == ["sketch"] * 3
    assert data.shown.paths == data.query.paths + data.gallery.paths
    assert data.shown.domains.tolist() == [SKETCH] * 3 + [PICTURE] * 4
    hands = [path for path in data.gallery.paths if "1F590" in path]
    assert [Path(path).parent.name for path in hands] == ["image"] * 2, "one sketch, in two colours of skin"
    assert sorted(set(data.gallery.labels)) == sorted(data.query.labels) == [0, 1, 2]
    assert not data.missing


def test_some_sketches_of_a_category_ask_and_everything_else_trains(tmp_path):
    data = open_dataset(trees.tuberlin(tmp_path))
    assert data.query.names == data.gallery.names == ("airplane", "alarm clock")
    assert np.bincount(data.query.labels).tolist() == [10, 10]
    assert names_of(data.gallery) == ["a.jpg", "b.JPG"] * 2
    assert np.bincount(data.train.domains).tolist() == [4, 4]
    asked, learned = (
        {path for path, domain in zip(part.paths, part.domains, strict=True) if domain == SKETCH}
        for part in (data.query, data.train)
    )
    assert not asked & learned
    assert len(asked | learned) == 24
    assert open_dataset(tmp_path).query.paths == data.query.paths, "the same ones each time"


def test_sketchy_by_category_takes_the_pictures_of_its_extension_where_they_are(tmp_path):
    data = open_dataset(trees.sketchy(tmp_path))
    assert np.bincount(data.query.labels).tolist() == [50, 50]
    assert len(data.gallery) == 40
    assert all("tx_000000000000" in path for path in data.query.paths)
    trees.put(tmp_path, "256x256/EXTEND_image_sketchy/airplane/ext_1.jpg")
    assert len(open_dataset(tmp_path).gallery) == 41
    assert "gallery has 41 pictures, officially 73,002" in check_dataset(tmp_path).problems


def test_a_sketch_asks_for_the_very_photo_that_it_was_drawn_of(tmp_path):
    data = open_dataset(trees.sketchy(tmp_path), name="sketchy-instance")
    assert names_of(data.gallery) == ["n02691156_8.jpg", "n02694662_18.jpg"]
    assert names_of(data.query) == [
        "n02691156_8-1.png", "n02691156_8-3.png", *(f"n02694662_18-{n}.png" for n in (1, 2, 3))
    ]  # fmt: skip
    assert data.query.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.train.classes == 38
    assert "n02691156_18" in data.train.names, "which begins as a photo of the test does"
    assert "n02694662_28-1.png" not in names_of(data.train), "which its owners call invalid"
    assert np.bincount(data.train.domains).tolist() == [38, 38 * 3 - 1]


def test_any_folder_is_halved_by_class_or_taken_as_its_folders_say(tmp_path):
    trees.put(tmp_path / "a", *(f"{name}/x y.PNG" for name in ("one", "three", "two")), "two/deep/2.jpg")
    data = open_dataset(tmp_path / "a")
    assert (data.name, data.train.names, data.query.names) == ("folder", ("one",), ("three", "two"))
    assert data.query.labels.tolist() == [0, 1, 1]
    trees.put(tmp_path / "b", "Train/k/1.jpg", "val/k/2.jpg", "val/m/3.jpg")
    data = open_dataset(tmp_path / "b")
    assert (data.train.names, data.query.names) == (("k",), ("k", "m"))
    trees.put(tmp_path / "c", "train/k/1.jpg", "query/m/2.jpg", "gallery/l/3.jpg", "gallery/m/4.jpg")
    data = open_dataset(tmp_path / "c")
    assert (data.protocol, data.query.labels.tolist(), data.gallery.labels.tolist()) == ("query-gallery", [1], [0, 1])
    assert open_dataset(tmp_path / "a", name="ebay").name == "ebay"


def test_a_table_gives_path_label_and_split(tmp_path):
    trees.put(tmp_path, "in/1.jpg", "in/2.jpg", "3.jpg")
    (tmp_path / "tables").mkdir()
    table = tmp_path / "tables" / "t.csv"
    table.write_bytes(b"\xef\xbb\xbfPath, LABEL ,split\r\n../in/1.jpg,shoe,train\r\n../in/2.jpg,hat,Test\r\n")
    data = open_dataset(table)
    assert (data.train.names, data.query.names) == (("shoe",), ("hat",))
    table.write_text(f"path,label\n{tmp_path}/3.jpg,b\n../in/1.jpg,a\n../in/9.jpg,b\n")
    data = open_dataset(table)
    assert (data.train.names, data.query.names, data.missing) == (("a",), ("b",), ("../in/9.jpg",))


def test_a_table_with_domains_lets_the_sketches_of_the_test_ask(tmp_path):
    trees.put(tmp_path, *(f"{name}.png" for name in "abcdefgh"))
    rows = ["a,x,sketch", "b,x,picture", "c,x,picture", "d,y,Sketch", "e,y,picture"]
    table = tmp_path / "t.csv"
    table.write_text("path,label,domain\n" + "".join(f"{row[0]}.png{row[1:]}\n" for row in rows))
    data = open_dataset(table)
    assert (data.protocol, data.train.domains.tolist()) == ("query-gallery", [SKETCH, PICTURE, PICTURE])
    assert (names_of(data.query), names_of(data.gallery)) == (["d.png"], ["e.png"])
    table.write_text("path,label,domain\na.png,x,drawing\n")
    with pytest.raises(BadSource, match="line 2: the domain 'drawing' is none of sketch, picture"):
        open_dataset(table)


@pytest.mark.parametrize(
    ("splits", "judged"), [("train val test", ("c",)), ("train test validation", ("b",)), ("train train valid", ("c",))]
)
def test_validation_rows_of_a_table_never_mix_with_those_of_the_test(splits, judged, tmp_path):
    trees.put(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    rows = zip("123", "abc", splits.split(), strict=True)
    (tmp_path / "t.csv").write_text("path,label,split\n" + "".join(f"{n}.jpg,{a},{part}\n" for n, a, part in rows))
    assert open_dataset(tmp_path / "t.csv").query.names == judged


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label\n", "needs the columns path and label, not file, label"),
        ("", "needs the columns path and label, not none"),
        ("path,label\n1.jpg,\n", "line 2: path or label is empty"),
        ("path,label,split\n1.jpg,a,dev\n", "line 2: the split 'dev' is none of train"),
        ("path,label,split\n1.jpg,a,train\n2.jpg,b,\n", "some rows have a split and others none"),
        ("path,label,split\n1.jpg,a,query\n", "give test, or query and gallery"),
        ("path,label,split\n1.jpg,a,train\n", "no pictures to judge in test"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(content, message, tmp_path):
    trees.put(tmp_path, "1.jpg", "2.jpg")
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(BadSource, match=message):
        open_dataset(tmp_path / "t.csv")


def test_pictures_that_are_not_there_are_left_out_counted_and_named(tmp_path, caplog):
    trees.cub200(tmp_path)
    gone = tmp_path / "CUB_200_2011/images/101.Bird_101/Bird_101_0001.jpg"
    gone.unlink()
    data = open_dataset(tmp_path)
    assert data.query.labels.tolist() == [0, 1, 1]
    assert data.missing == ("101.Bird_101/Bird_101_0001.jpg",)
    assert "1 pictures that its lists name are not there" in caplog.text
    found = check_dataset(tmp_path)
    assert (found.complete, found.missing, found.missing_first) == (False, 1, data.missing)


def test_a_set_without_any_of_its_pictures_is_refused(tmp_path):
    trees.cub200(tmp_path)
    shutil.rmtree(tmp_path / "CUB_200_2011" / "images")
    with pytest.raises(BadSource, match=r"no pictures to judge in test, 8 pictures that its lists name"):
        open_dataset(tmp_path)
    found = check_dataset(tmp_path)
    assert (found.name, found.absent, found.owner[:8]) == ("cub200", ("images",), "https://")


@pytest.mark.parametrize(
    ("builder", "gone", "message"),
    [
        ("cub200", "CUB_200_2011/images.txt", "images.txt"),
        ("sop", "Ebay_test.txt", "Ebay_test.txt"),
        ("market1501", "query", "query"),
        ("vehicleid", "train_test_split/test_list_1600.txt", "train_test_split/test_list_1600.txt"),
        ("street2shop", "photos", "photos|images"),
    ],
)
def test_a_list_or_folder_that_is_not_there_is_named_with_its_owners(builder, gone, message, tmp_path):
    trees.BUILDERS[builder](tmp_path)
    place = tmp_path / gone
    shutil.rmtree(place) if place.is_dir() else place.unlink()
    found = check_dataset(tmp_path)
    assert (found.name, found.absent) == (builder, (message,))
    assert found.owner.startswith("http")
    assert not found.complete


def test_people_of_lfw_may_lie_beside_their_list_and_are_named_where_they_are_gone(tmp_path):
    trees.lfw(tmp_path)
    for person in (tmp_path / "lfw").iterdir():
        person.rename(tmp_path / person.name)
    (tmp_path / "lfw").rmdir()
    data = open_dataset(tmp_path)
    assert (data.name, len(data.query), len(data.pairs)) == ("lfw", 6, 4)
    assert check_dataset(tmp_path).absent == ()
    shutil.rmtree(tmp_path / "Ann_B")
    found = check_dataset(tmp_path)
    assert (found.name, found.missing, found.complete) == ("lfw", 2, False)


def test_a_folder_that_may_not_be_read_does_not_hide_the_data_set_beside_it(tmp_path, monkeypatch):
    trees.cub200(tmp_path)
    (tmp_path / "A locked").mkdir()
    listed = os.scandir

    def scandir(path):
        if Path(path) in locked:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    locked = [tmp_path / "A locked"]
    monkeypatch.setattr(os, "scandir", scandir)
    assert open_dataset(tmp_path).name == "cub200"
    locked.append(tmp_path)
    with pytest.raises(BadSource, match="cannot be read: Permission denied"):
        open_dataset(tmp_path)


def test_the_folder_train_alone_is_a_folder_of_classes_and_among_others_a_class(tmp_path):
    trees.put(tmp_path / "a", *(f"train/{name}/{n}.jpg" for name in ("one", "two", "three", "four") for n in "12"))
    data = open_dataset(tmp_path / "a")
    assert (data.train.names, data.query.names) == (("four", "one"), ("three", "two"))
    trees.put(tmp_path / "b", "bus/1.jpg", "train/1.jpg")
    assert open_dataset(tmp_path / "b").query.names == ("train",)


def test_a_link_to_a_folder_above_is_not_followed_round_and_round(tmp_path):
    trees.put(tmp_path / "a", "one/deep/1.jpg", "two/2.jpg")
    (tmp_path / "a" / "one" / "deep" / "up").symlink_to(tmp_path / "a" / "one")
    trees.put(tmp_path / "b", "3.jpg")
    (tmp_path / "a" / "two" / "more").symlink_to(tmp_path / "b")
    data = open_dataset(tmp_path / "a")
    assert (len(data.train), len(data.query)) == (1, 2)


def test_other_numbers_than_the_official_ones_are_problems(tmp_path):
    found = check_dataset(trees.market1501(tmp_path))
    assert found.splits[0].images == 3
    assert found.splits[0].official_images == 12_936
    assert "train has 3 pictures, officially 12,936" in found.problems


def test_a_folder_of_ones_own_is_complete(tmp_path):
    trees.put(tmp_path, "a/1.jpg", "b/1.jpg")
    assert check_dataset(tmp_path).complete


@pytest.mark.parametrize(
    ("builder", "file", "content", "message"),
    [
        ("cub200", "CUB_200_2011/images.txt", "only-one-column\n", "line 1: 'only-one-column' is not 'image_id path'"),
        ("cub200", "CUB_200_2011/images.txt", "99 a/b.jpg\n", "no class for image 99"),
        ("sop", "Ebay_test.txt", "1 x 2 a.jpg\n", "line 1: 'x' is no number"),
        (
            "inshop",
            "Eval/list_eval_partition.txt",
            "1\nimage_name item_id evaluation_status\na b dev\n",
            "line 3: the status 'dev'",
        ),
        ("lfw", "pairs.txt", "Ann 1 2\n", "line 1: 'Ann' is no number"),
        ("lfw", "pairs.txt", "1\t1\nAnn\t1\nx\n", "line 2: .* is neither"),
        ("street2shop", "meta/json/test_pairs_bags.json", '[{"photo": 1}]', "test_pairs_bags.json: an entry is not"),
        ("street2shop", "meta/json/test_pairs_bags.json", "{", "no JSON"),
        (
            "street2shop",
            "meta/json/test_pairs_bags.json",
            '[{"photo": 7, "product": 20, "bbox": {"left": "", "top": 2, "width": 4, "height": 3}}]',
            "test_pairs_bags.json: an entry is not",
        ),
        ("consumer2shop", "list_eval_partition.txt", "²\nimage_pair_name_1\n", "line 1: '²' is not 'pair"),
        ("cub200", "CUB_200_2011/classes.txt", "one 001.Bird_1\n", "classes.txt line 1: 'one' is no number"),
        ("lfw", "pairs.txt", "10\t0\nAnn\t1\t2\n", "line 1: .* is not 'folds TAB pairs'"),
        ("cars196", "cars_annos.mat", "text", "not the list of Cars196"),
        ("veri776", "name_test.txt", "car.jpg\n", "does not begin with identity and camera"),
        ("emoji-zs", "emoji-datasource-apple/package/emoji.json", "[{}]", "not the emoji.json"),
        ("emoji-zs", "emoji-datasource-apple/package/emoji.json", '[{"sort_order": Infinity}]', "not the emoji.json"),
    ],
)
def test_a_list_that_cannot_be_read_is_named_with_its_line(builder, file, content, message, tmp_path):
    trees.BUILDERS[builder](tmp_path)
    (tmp_path / file).write_text(content)
    with pytest.raises(BadSource, match=message):
        open_dataset(tmp_path, name=builder)


def test_a_vendor_that_was_not_unpacked_is_named(tmp_path):
    trees.emoji(tmp_path)
    shutil.rmtree(tmp_path / "emoji-datasource-google")
    with pytest.raises(BadSource, match="of google;"):
        open_dataset(tmp_path)
    assert "npm pack" in check_dataset(tmp_path).obtain


def test_names_and_places_that_are_not_there(tmp_path):
    with pytest.raises(UnknownName, match="There is no data set called 'cub20'; did you mean 'cub200'"):
        open_dataset(tmp_path, name="cub20")
    with pytest.raises(BadSource, match="no data set at '~nobody-has-this-name/emoji'"):
        check_dataset("~nobody-has-this-name/emoji")
    with pytest.raises(BadSource, match=r"no data set at 'emoji-zs'; its owners publish it at http.*npm pack"):
        open_dataset("emoji-zs")
    with pytest.raises(BadSource, match="no folders with pictures"):
        open_dataset(tmp_path)
    (tmp_path / "t.csv").write_text("path,label\n")
    with pytest.raises(BadSource, match="is a file"):
        open_dataset(tmp_path / "t.csv", name="sop")
