"""The data sets that embedkit reads, as data: what each needs, where its owners publish it, its official numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from embedkit.errors import UnknownName
from embedkit.training.datasets.contract import Protocol

__all__ = ["DATASETS", "DataSetInfo", "find_dataset"]

_PACKAGES = "emoji-datasource-apple emoji-datasource-google emoji-datasource-twitter emoji-datasource-facebook"


@dataclass(frozen=True, slots=True)
class DataSetInfo:
    """A row of the registry.

    `target`: ``module:function`` of its reader. `needs`: paths that must be there; ``|`` parts alternatives. `mark`:
    a (path, text) that tells it from another with the same files. `official`: pictures and classes by split.
    `obtain`: what to do where the owner's page does not say it.
    """

    name: str
    summary: str
    target: str
    protocol: Protocol
    owner: str
    needs: tuple[str, ...]
    mark: tuple[str, str] | None = None
    official: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    obtain: str = ""


_READERS = "embedkit.training.datasets"
_PARTITION = "list_eval_partition.txt|Eval/list_eval_partition.txt|Anno/list_eval_partition.txt"
_STREET = "|".join(f"{folder}retrieval_dresses.json" for folder in ("meta/json/", "meta/meta/json/", "json/", ""))
_TUBERLIN = (  # a category that both have, since the names of the folders are anyone's
    "png/airplane|sketches/airplane|png_ready/airplane",
    "ImageResized/airplane|images/airplane|ImageResized_ready/airplane",
)
_SKETCHES, _PHOTOS = (
    "|".join(
        f"{head}{kind}/tx_000000000000{tail}"
        for head in ("256x256/", "rendered_256x256/256x256/", "")
        for tail in ("", "_ready")
    )
    for kind in ("sketch", "photo")
)
_CIFAR = (
    "data_batch_1.bin|cifar-10-batches-bin/data_batch_1.bin|data_batch_1|cifar-10-batches-py/data_batch_1",
    "test_batch.bin|cifar-10-batches-bin/test_batch.bin|test_batch|cifar-10-batches-py/test_batch",
)
_CIFAR_OWNER = "https://www.cs.toronto.edu/~kriz/cifar.html"
_BINARY = "Take the binary version: that for Python is pickled, which can run code."
_NUSWIDE = (
    "ImageList/Imagelist.txt|Imagelist.txt",
    "ConceptsList/Concepts81.txt|Concepts81.txt",
    "Groundtruth/AllLabels|AllLabels",
)
_NUSWIDE_OWNER = "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html"
_FLICKR = "The owners list addresses of photos; put them into Flickr/ under the paths of Imagelist.txt."

DATASETS: tuple[DataSetInfo, ...] = (
    DataSetInfo(
        "cub200",
        "CUB-200-2011: 200 kinds of birds",
        f"{_READERS}.zero_shot:read_cub200",
        "zero-shot",
        "https://www.vision.caltech.edu/datasets/cub_200_2011/",
        ("images.txt", "image_class_labels.txt", "images"),
        official={"train": (5_864, 100), "test": (5_924, 100)},
    ),
    DataSetInfo(
        "cars196",
        "Cars196: 196 models of cars",
        f"{_READERS}.zero_shot:read_cars196",
        "zero-shot",
        "https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
        ("cars_annos.mat|devkit/cars_annos.mat", "car_ims"),
        official={"train": (8_054, 98), "test": (8_131, 98)},
    ),
    DataSetInfo(
        "sop",
        "Stanford Online Products: 22,634 products",
        f"{_READERS}.zero_shot:read_sop",
        "zero-shot",
        "https://cvgl.stanford.edu/projects/lifted_struct/",
        ("Ebay_train.txt", "Ebay_test.txt"),
        official={"train": (59_551, 11_318), "test": (60_502, 11_316)},
    ),
    DataSetInfo(
        "ebay",
        "products of eBay from a Kaggle in-class competition, a folder for each",
        f"{_READERS}.folders:read_ebay",
        "zero-shot",
        "https://www.kaggle.com/competitions",
        (),
        obtain="In-class competitions are shown to who was invited. Give the name: the layout is that of any folder.",
    ),
    DataSetInfo(
        "inshop",
        "DeepFashion In-shop Clothes Retrieval",
        f"{_READERS}.fashion:read_inshop",
        "query-gallery",
        "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html",
        (_PARTITION, "img|Img"),
        mark=(_PARTITION, "image_name"),
        official={"train": (25_882, 3_997), "query": (14_218, 3_985), "gallery": (12_612, 3_985)},
    ),
    DataSetInfo(
        "consumer2shop",
        "DeepFashion Consumer-to-shop Clothes Retrieval",
        f"{_READERS}.fashion:read_consumer2shop",
        "consumer-to-shop",
        "https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/Consumer2ShopRetrieval.html",
        (_PARTITION, "img|Img"),
        mark=(_PARTITION, "image_pair_name_1"),
    ),
    DataSetInfo(
        "street2shop",
        "Street2Shop: clothes on the street and in shops, 11 categories",
        f"{_READERS}.fashion:read_street2shop",
        "street-to-shop",
        "http://www.tamaraberg.com/street2shop/",
        ("meta/json|meta/meta/json|json|retrieval_dresses.json", "photos|images"),
        mark=(_STREET, ""),
        obtain="The owners list addresses of photos, many of which are gone; name each NUMBER.jpg in photos/.",
    ),
    DataSetInfo(
        "lfw",
        "Labeled Faces in the Wild: 6,000 pairs of faces",
        f"{_READERS}.faces:read_lfw",
        "pairs",
        "https://vis-www.cs.umass.edu/lfw/",
        ("pairs.txt",),  # the people lie in a folder of several names, or beside it
        mark=("pairs.txt", "\t"),
        official={"test": (7_701, 4_281)},
    ),
    DataSetInfo(
        "market1501",
        "Market-1501: persons seen by six cameras",
        f"{_READERS}.reid:read_market1501",
        "cross-camera",
        "https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html",
        ("bounding_box_train", "bounding_box_test", "query"),
        official={"train": (12_936, 751), "query": (3_368, 750), "gallery": (19_732, 750)},
    ),
    DataSetInfo(
        "veri776",
        "VeRi-776: vehicles seen by 20 cameras",
        f"{_READERS}.reid:read_veri776",
        "cross-camera",
        "https://vehiclereid.github.io/VeRi/",
        (
            "name_train.txt",
            "name_query.txt",
            "name_test.txt",
            "image_train",
            "image_query",
            "image_test",
        ),
        official={"train": (37_778, 576), "query": (1_678, 200), "gallery": (11_579, 200)},
    ),
    DataSetInfo(
        "vehicleid",
        "PKU VehicleID: 26,267 vehicles",
        f"{_READERS}.reid:read_vehicleid",
        "random-galleries",
        "https://www.pkuml.org/resources/pku-vehicleid.html",
        (
            "train_test_split/train_list.txt",
            "train_test_split/test_list_800.txt",
            "train_test_split/test_list_1600.txt",
            "train_test_split/test_list_2400.txt",
            "image",
        ),
        official={"train": (113_346, 13_164)},
    ),
    DataSetInfo(
        "emoji-zs",
        "emoji as four vendors draw them, unseen ones are judged",
        f"{_READERS}.emoji:read_emoji",
        "zero-shot",
        "https://github.com/iamcal/emoji-data",
        (),
        official={"train": (3_793, 955), "test": (3_797, 956)},
        obtain=f"In an empty folder: for name in {_PACKAGES}; do npm pack $name@16.0.0 && mkdir $name && "
        "tar xzf $name-16.0.0.tgz -C $name; done",
    ),
    DataSetInfo(
        "openmoji-sketch",
        "drawings of OpenMoji: black outlines ask for the coloured ones, of unseen things",
        f"{_READERS}.sketches:read_openmoji",
        "query-gallery",
        "https://openmoji.org",
        ("sketch", "image"),
        mark=("LICENSE.txt", "OpenMoji"),
        official={"train": (3_152, 1_023), "query": (1_024, 1_024), "gallery": (2_366, 1_024)},
        obtain="With npm and resvg-py: python examples/openmoji-sketch.py PATH",
    ),
    DataSetInfo(
        "tuberlin",
        "TU-Berlin with the pictures of its extension: sketches ask, 250 categories",
        f"{_READERS}.sketches:read_tuberlin",
        "query-gallery",
        "https://cybertron.cg.tu-berlin.de/eitz/projects/classifysketch/",
        _TUBERLIN,
        official={"query": (2_500, 250), "gallery": (204_489, 250)},
        obtain="The pictures of the extension (Zhang et al. 2016, SketchNet) lie in ImageResized/CATEGORY.",
    ),
    DataSetInfo(
        "sketchy",
        "Sketchy by category: sketches ask, 125 categories; with its extension, if that is there",
        f"{_READERS}.sketches:read_sketchy",
        "query-gallery",
        "https://sketchy.eye.gatech.edu/",
        (_SKETCHES, _PHOTOS),
        official={"query": (6_250, 125), "gallery": (73_002, 125)},
        obtain="The 60,502 pictures of the extension (Liu 2017) lie in EXTEND_image_sketchy/CATEGORY.",
    ),
    DataSetInfo(
        "sketchy-instance",
        "Sketchy by photo: a sketch asks for the very photo that it was drawn of",
        f"{_READERS}.sketches:read_sketchy_instances",
        "query-gallery",
        "https://sketchy.eye.gatech.edu/",
        (_SKETCHES, _PHOTOS, "info/testset.txt|testset.txt"),
        official={"gallery": (1_250, 1_250)},
        obtain="Give the name: the files are those of sketchy.",
    ),
    DataSetInfo(
        "cifar10",
        "CIFAR-10 for hashing: 1,000 queries, 5,000 train",
        f"{_READERS}.cifar:read_cifar10",
        "query-gallery",
        _CIFAR_OWNER,
        _CIFAR,
        official={"train": (5_000, 10), "query": (1_000, 10), "gallery": (59_000, 10)},
        obtain=_BINARY,
    ),
    DataSetInfo(
        "cifar10-official",
        "CIFAR-10 with its own split: the 10,000 test pictures ask, the others train",
        f"{_READERS}.cifar:read_cifar10_official",
        "query-gallery",
        _CIFAR_OWNER,
        _CIFAR,
        official={"train": (50_000, 10), "query": (10_000, 10), "gallery": (50_000, 10)},
        obtain=f"{_BINARY} Give the name: the files are those of cifar10.",
    ),
    DataSetInfo(
        "mirflickr25k",
        "MIRFlickr-25k: 24 concepts, several to a picture",
        f"{_READERS}.flickr:read_mirflickr",
        "query-gallery",
        "https://press.liacs.nl/mirflickr/mirdownload.html",
        (
            "mirflickr25k_annotations_v080/animals.txt|annotations/animals.txt|animals.txt",
            "mirflickr/im1.jpg|images/im1.jpg|im1.jpg",
        ),
        official={"train": (5_000, 24), "query": (2_000, 24), "gallery": (22_581, 24)},
    ),
    DataSetInfo(
        "nuswide21",
        "NUS-WIDE: its 21 most frequent concepts, several to a picture",
        f"{_READERS}.flickr:read_nuswide21",
        "query-gallery",
        _NUSWIDE_OWNER,
        _NUSWIDE,
        official={"train": (10_500, 21), "query": (2_100, 21), "gallery": (193_734, 21)},
        obtain=_FLICKR,
    ),
    DataSetInfo(
        "nuswide81",
        "NUS-WIDE: all 81 concepts, several to a picture",
        f"{_READERS}.flickr:read_nuswide81",
        "query-gallery",
        _NUSWIDE_OWNER,
        _NUSWIDE,
        official={"train": (10_000, 81), "query": (5_000, 81)},
        obtain=f"{_FLICKR} Give the name: the files are those of nuswide21.",
    ),
    DataSetInfo(
        "emoji-captions",
        "emoji-zs with the names of its emoji as captions; give the name",
        f"{_READERS}.emoji:read_emoji_captions",
        "image-text",
        "https://github.com/iamcal/emoji-data",
        (),
        official={"train": (3_793, 955), "test": (3_797, 956)},
        obtain="The folder is that of emoji-zs.",
    ),
    DataSetInfo(
        "flickr30k",
        "Flickr30k: 31,014 photos with five captions each, in Karpathy's splits",
        f"{_READERS}.captions:read_flickr30k",
        "image-text",
        "https://shannon.cs.illinois.edu/DenotationGraph/",
        ("dataset_flickr30k.json|annotations/dataset_flickr30k.json|karpathy/dataset_flickr30k.json",),
        official={"train": (29_000, 29_000), "test": (1_000, 1_000)},
        obtain="Karpathy's splits: https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
    ),
    DataSetInfo(
        "coco",
        "COCO 2014: photos with five captions each, in Karpathy's splits",
        f"{_READERS}.captions:read_coco",
        "image-text",
        "https://cocodataset.org",
        ("dataset_coco.json|annotations/dataset_coco.json|karpathy/dataset_coco.json",),
        official={"train": (113_287, 113_287), "test": (5_000, 5_000)},
        obtain="Karpathy's splits: https://cs.stanford.edu/people/karpathy/deepimagesent/caption_datasets.zip",
    ),
    DataSetInfo(
        "captions",
        "any pictures with captions: x.txt beside x.jpg (give the name), or a table with path and caption",
        f"{_READERS}.captions:read_captions",
        "image-text",
        "",
        (),
    ),
    DataSetInfo(
        "csv",
        "any table with the columns path, label and, if there is one, split",
        f"{_READERS}.table:read_table",
        "zero-shot",
        "",
        (),
    ),
    DataSetInfo(
        "folder",
        "any folder tree, CLASS/picture, whole or in train/ and test/",
        f"{_READERS}.folders:read_folder",
        "zero-shot",
        "",
        (),
    ),
)


def find_dataset(name: str) -> DataSetInfo:
    """The row of a name. Raises UnknownName with the nearest known ones."""
    for one in DATASETS:
        if one.name == name:
            return one
    raise UnknownName("data set", name, (one.name for one in DATASETS))
