"""Miniature data sets in the exact layouts of their owners, with the traps of the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

PAGE = Image.new("RGB", (8, 8), (200, 30, 30))


def put(root: Path, *names: str, mode: str = "RGB") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        PAGE.convert(mode).save(root / name)


def text(root: Path, name: str, *lines: str, end: str = "\n", start: str = "") -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes((start + "".join(line + end for line in lines)).encode())


def cub200(root: Path) -> Path:
    """Classes 1, 100, 101 and 200, two pictures each, one of them grey; inside the folder of the archive."""
    home = root / "CUB_200_2011"
    images, labels = [], []
    for place, number in enumerate((1, 100, 101, 200)):
        for copy in range(2):
            image = 2 * place + copy + 1
            name = f"{number:03}.Bird_{number}/Bird_{number}_{copy:04}.jpg"
            put(home, f"images/{name}", mode="L" if image == 5 else "RGB")
            images.append(f"{image} {name}")
            labels.append(f"{image} {number}")
    text(home, "images.txt", *images)
    text(home, "image_class_labels.txt", *labels)
    text(home, "classes.txt", *(f"{n} {n:03}.Bird_{n}" for n in (1, 100, 101, 200)))
    text(home, "train_test_split.txt", *(f"{n} {n % 2}" for n in range(1, 9)))
    return root


def cars196(root: Path) -> Path:
    """Classes 98 and 99; `scipy` writes the structs that the owners wrote with MATLAB."""
    from scipy.io import savemat

    fields = [("relative_im_path", "O"), ("bbox_x1", "i4"), ("class", "u1"), ("test", "u1")]
    rows = [(f"car_ims/{n:06}.jpg", 1, 98 + n // 3, n % 2) for n in range(1, 6)]
    names = np.array([f"Make Model {n}" for n in range(1, 197)], object)
    root.mkdir(parents=True, exist_ok=True)
    savemat(root / "cars_annos.mat", {"annotations": np.array(rows, fields), "class_names": names})
    put(root, *(row[0] for row in rows))
    return root


def sop(root: Path) -> Path:
    """A space in a path, the wrong case in another, Windows line ends."""
    head = "image_id class_id super_class_id path"
    text(root, "Ebay_train.txt", head, "1 1 1 bicycle_final/11_0.JPG", "2 1 1 bicycle_final/11 1.JPG", end="\r\n")
    text(root, "Ebay_test.txt", head, "3 11319 2 cabinet_final/22_0.JPG", "4 11320 2 cabinet_final/33_0.JPG")
    put(root, "bicycle_final/11_0.JPG", "bicycle_final/11 1.JPG", "cabinet_final/22_0.jpg", "cabinet_final/33_0.JPG")
    return root


def inshop(root: Path) -> Path:
    rows = [(f"img/WOMEN/Blouses_Shirts/id_{n:08}/02_{v}_front.jpg", f"id_{n:08}") for n in (1, 2, 3) for v in (1, 2)]
    states = ["train", "train", "query", "gallery", "query", "gallery"]
    lines = [f"{path:<60} {item} {state}" for (path, item), state in zip(rows, states, strict=True)]
    text(root, "Eval/list_eval_partition.txt", "6", "image_name item_id evaluation_status", *lines)
    put(root / "Img", *(path for path, _ in rows))
    return root


def consumer2shop(root: Path) -> Path:
    """A shop picture in two pairs counts once; `val` is left out."""
    one, two, three = (f"img/CLOTHING/Coat/id_{n:08}" for n in (1, 2, 3))
    four = "img/DRESSES/Lace Dress/id_00000004"
    pairs = [
        (f"{one}/comsumer_02.jpg", f"{one}/shop_01.jpg", "id_00000001", "train"),
        (f"{two}/comsumer_02.jpg", f"{two}/shop_01.jpg", "id_00000002", "val"),
        (f"{three}/comsumer_02.jpg", f"{three}/shop_01.jpg", "id_00000003", "test"),
        (f"{three}/comsumer_03.jpg", f"{three}/shop_01.jpg", "id_00000003", "test"),
        (f"{four}/comsumer_01.jpg", f"{four}/shop_01.jpg", "id_00000004", "test"),
    ]
    head = "image_pair_name_1 image_pair_name_2 item_id evaluation_status"
    text(root, "list_eval_partition.txt", str(len(pairs)), head, *("    ".join(pair) for pair in pairs))
    put(root, *(path for pair in pairs for path in pair[:2]))
    return root


def street2shop(root: Path) -> Path:
    """Two categories; a photo with leading zeros, one without, one that is gone."""
    box = {"left": 1, "top": 2, "width": 4, "height": 5}
    lists = {
        "retrieval_dresses": [{"photo": 1, "product": 10}, {"photo": 2, "product": 11}, {"photo": 3, "product": 12}],
        "train_pairs_dresses": [{"photo": 4, "product": 10, "bbox": box}],
        "test_pairs_dresses": [{"photo": 5, "product": 11, "bbox": box}],
        "retrieval_bags": [{"photo": 6, "product": 20}],
        "train_pairs_bags": [],
        "test_pairs_bags": [{"photo": 7, "product": 20, "bbox": box}],
    }
    for name, rows in lists.items():
        text(root, f"meta/json/{name}.json", json.dumps(rows))
    put(root, "photos/000000001.jpg", "photos/2.JPEG", *(f"photos/{n:09}.png" for n in (4, 5, 6, 7)))
    return root


def lfw(root: Path) -> Path:
    """Two folds of one pair of each kind; one name has a hyphen."""
    people = {"Ann_B": 2, "Jean-Luc_P": 2, "Cy": 1, "Di": 1}
    put(root, *(f"lfw/{name}/{name}_{n:04}.jpg" for name, count in people.items() for n in range(1, count + 1)))
    lines = ["2\t1", "Ann_B\t1\t2", "Cy\t1\tDi\t1", "Jean-Luc_P\t1\t2", "Ann_B\t1\tCy\t1"]
    text(root, "pairs.txt", *lines)
    return root


def market1501(root: Path) -> Path:
    """Identities 2 and 7 train, 3 is judged; junk, a distractor, and the file that Windows left."""
    put(root, "bounding_box_train/0002_c1s1_000451_03.jpg", "bounding_box_train/0002_c2s1_000451_03.jpg")
    put(root, "bounding_box_train/0007_c3s1_000451_01.jpg", "query/0003_c1s1_001051_00.jpg")
    gallery = ("0003_c1s1_0_01", "0003_c4s2_0_01", "-1_c2s1_0_00", "0000_c6s1_0_02")
    put(root, *(f"bounding_box_test/{name}.jpg" for name in gallery))
    text(root, "bounding_box_test/Thumbs.db", "not a picture")
    return root


def veri776(root: Path) -> Path:
    names = {"train": ["0001_c001_00016450_0.jpg"], "query": ["0002_c002_00030600_0.jpg"]}
    names["test"] = ["0002_c002_00030600_0.jpg", "0002_c003_00030640_0.jpg"]
    for part, listed in names.items():
        text(root, f"name_{part}.txt", *listed, end="\r\n", start="\ufeff")
        put(root, *(f"image_{part}/{name}" for name in listed))
    return root


def vehicleid(root: Path) -> Path:
    """The smaller test lists are parts of the larger."""
    text(root, "train_test_split/train_list.txt", "0000001 7", "0000002 9")
    rows = [f"{n:07} {100 + n // 2}" for n in range(10, 18)]
    for size, count in ((800, 4), (1600, 6), (2400, 8)):
        text(root, f"train_test_split/test_list_{size}.txt", *rows[:count])
    put(root, *(f"image/{n:07}.jpg" for n in (1, 2, *range(10, 18))))
    return root


def emoji(root: Path, count: int = 5) -> Path:
    """Vendors side by side as `npm pack` and `tar` leave them; the last emoji is not drawn by twitter."""
    rows = [
        {
            "image": f"1f{600 + n}.png", "short_name": f"name{n}", "sort_order": count - n, "has_img_apple": True,
            "has_img_google": True, "has_img_facebook": True, "has_img_twitter": n != count - 1,
        }
        for n in range(count)
    ]  # fmt: skip
    for vendor in ("apple", "google", "twitter", "facebook"):
        home = f"emoji-datasource-{vendor}/package"
        text(root, f"{home}/emoji.json", json.dumps(rows))
        drawn = [row["image"] for row in rows if row[f"has_img_{vendor}"]]
        put(root, *(f"{home}/img/{vendor}/64/{name}" for name in drawn), mode="RGBA")
    return root


def openmoji(root: Path) -> Path:
    """Six outlines; the first is that of two colours of skin, and the last has no coloured drawing."""
    names = ["1F590-1F3FB", "1F590-1F3FC", *(f"1F60{n}" for n in range(1, 6))]
    put(root, *(f"image/{name}.png" for name in names[:-1]))
    (root / "sketch").mkdir()
    for shade, name in enumerate(["1F590", *names[2:]]):
        for same in names[:2] if name == "1F590" else [name]:
            Image.new("L", (8, 8), shade).save(root / "sketch" / f"{same}.png")
    text(root, "LICENSE.txt", "Pictures: OpenMoji")
    return root


def tuberlin(root: Path, sketches: int = 12) -> Path:
    """Two categories, one with a space; the owners' list beside the sketches is no category."""
    for category in ("airplane", "alarm clock"):
        put(root, *(f"png/{category}/{n}.png" for n in range(1, sketches + 1)), mode="L")
        put(root, f"ImageResized/{category}/a.jpg", f"ImageResized/{category}/b.JPG")
    text(root, "png/filelist.txt", "airplane/1.png")
    return root


def sketchy(root: Path, sketches: int = 3, photos: int = 20) -> Path:
    """Photo numbers of different lengths, sketches in two renderings, one sketch that is not of any photo."""
    for category, wordnet in (("airplane", "n02691156"), ("alarm_clock", "n02694662")):
        names = [f"{wordnet}_{10 * n + 8}" for n in range(photos)]
        put(root, *(f"256x256/photo/tx_000000000000/{category}/{name}.jpg" for name in names))
        for rendering in ("tx_000000000000", "tx_000100000000"):
            drawn = [f"{name}-{n}" for name in names for n in range(1, sketches + 1)]
            put(root, *(f"256x256/sketch/{rendering}/{category}/{name}.png" for name in [*drawn, "n09_1-1"]))
    text(root, "info/testset.txt", "airplane/n02691156_8.jpg", "alarm_clock/n02694662_18.jpg", end="\r\n")
    text(root, "info/invalid-error.txt", "n02691156_8-2")
    text(root, "info/invalid-pose.txt", "n02694662_28-1")
    return root


def cifar10(root: Path, count: int = 101) -> Path:
    """Six batches of so many pictures of each class in mixed order; the red of a picture is its number in its batch."""
    (root / "cifar-10-batches-bin").mkdir(parents=True)
    labels = np.random.default_rng(3).permutation(np.repeat(np.arange(10, dtype=np.uint8), count))
    planes = np.zeros((len(labels), 3, 32, 32), np.uint8)
    planes[:, 0] = (np.arange(len(labels)) % 251).reshape(-1, 1, 1)
    planes[:, 1, 0] = 200  # green in the first row
    records = np.concatenate([labels[:, None], planes.reshape(len(labels), -1)], axis=1)
    for name in (*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"):
        (root / "cifar-10-batches-bin" / f"{name}.bin").write_bytes(records.tobytes())
    text(root, "cifar-10-batches-bin/batches.meta.txt", "airplane", "automobile")
    return root


MIRFLICKR = [
    "animals", "baby", "bird", "car", "clouds", "dog", "female", "flower", "food", "indoor", "lake", "male", "night",
    "people", "plant_life", "portrait", "river", "sea", "sky", "structures", "sunset", "transport", "tree", "water",
]  # fmt: skip


def mirflickr(root: Path) -> Path:
    """Twelve pictures there of thousands that the lists name; a stricter list, and a note among the lists."""
    put(root, *(f"mirflickr/im{n}.jpg" for n in range(1, 13)))
    home = "mirflickr25k_annotations_v080"
    for name in MIRFLICKR:
        text(root, f"{home}/{name}.txt", end="\r\n")
    text(root, f"{home}/sky.txt", *map(str, range(1, 2_101)), end="\r\n")
    text(root, f"{home}/sea.txt", "1", "2", "2101", end="\r\n")
    text(root, f"{home}/sky_r1.txt", "9000", end="\r\n")
    text(root, f"{home}/README.txt", "See the paper.")
    return root


def nuswide(root: Path) -> Path:
    """Paths with the backslashes of Windows, a tenth of them there; 22 concepts, the last of one picture."""
    names, each = [f"concept{n:02}" for n in range(22)], 140
    paths = [f"actor\\{n:04}_{n * 37}.jpg" for n in range(21 * each)]
    text(root, "ImageList/Imagelist.txt", *paths, end="\r\n")
    text(root, "ConceptsList/Concepts81.txt", *names)
    for place, name in enumerate(names):
        flags = [n // each == place or n == (place - 1) * each for n in range(len(paths))]
        text(root, f"Groundtruth/AllLabels/Labels_{name}.txt", *(str(int(flag)) for flag in flags))
    put(root, *(f"Flickr/{path}".replace("\\", "/") for path in paths[::10]))
    return root


def karpathy(root: Path, name: str, images: list[tuple[str, str, list[str]]]) -> Path:
    """A list of (path, split, captions) as Karpathy publishes it, with its pictures."""
    rows = []
    for number, (path, split, captions) in enumerate(images):
        folder, _, file = path.rpartition("/")
        sentences = [{"raw": raw, "tokens": raw.split(), "imgid": number} for raw in captions]
        rows.append({"filename": file, "split": split, "imgid": number, "sentences": sentences})
        if name == "coco":
            rows[-1]["filepath"] = folder
    text(root, f"dataset_{name}.json", json.dumps({"dataset": name, "images": rows}))
    put(root, *(path for path, _, _ in images))
    return root


def flickr30k(root: Path) -> Path:
    rows = [(f"flickr30k-images/{n}.jpg", split, [f"a thing {n} .", "a thing ."]) for n, split in
            enumerate(("train", "val", "test", "test"))]  # fmt: skip
    return karpathy(root, "flickr30k", rows)


def coco(root: Path) -> Path:
    """Five pictures are judged; a caption twice, and a picture that lost its captions."""
    rows = [
        ("train2014/1.jpg", "train", ["a dog runs .", "dog", " dog "]),
        ("val2014/2.jpg", "restval", ["two cats"]),
        ("val2014/3.jpg", "val", ["left out"]),
        ("val2014/9.jpg", "train", [""]),
    ]
    rows += [(f"val2014/{n}.jpg", "test", [f"thing {n}"]) for n in range(4, 9)]
    return karpathy(root, "coco", rows)


def captions(root: Path) -> Path:
    """Ten pictures and texts beside them, one with two lines; and a picture without a text."""
    for place in range(10):
        put(root, f"{place}.jpg")
        text(root, f"{place}.txt", f"thing {place}", *(["once more"] if place == 9 else []))
    put(root, "zz.jpg")
    return root


BUILDERS = {
    "coco": coco,
    "cars196": cars196,
    "cifar10": cifar10,
    "consumer2shop": consumer2shop,
    "cub200": cub200,
    "emoji-zs": emoji,
    "flickr30k": flickr30k,
    "inshop": inshop,
    "lfw": lfw,
    "market1501": market1501,
    "mirflickr25k": mirflickr,
    "nuswide21": nuswide,
    "openmoji-sketch": openmoji,
    "sketchy": sketchy,
    "sop": sop,
    "street2shop": street2shop,
    "tuberlin": tuberlin,
    "vehicleid": vehicleid,
    "veri776": veri776,
}
