"""The units that words may move, movements of the face in words, and what is neither; feelings are in `feelings`.

The map from texts to units learns from these words. Units of movements are our reading of FACS (Ekman and Friesen 1978).
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: The units that words may move, without their sides: of the upper face, the mouth's corners, upper lip and chin. Never those by which a mouth speaks.
MOVED = (
    "browInnerUp",
    "browOuterUp",
    "browDown",
    "cheekSquint",
    "eyeBlink",
    "eyeSquint",
    "eyeWide",
    "noseSneer",
    "mouthSmile",
    "mouthFrown",
    "mouthDimple",
    "mouthStretch",
    "mouthUpperUp",
    "mouthShrugLower",
)
#: Units that have one weight for both sides.
ALONE = ("browInnerUp", "mouthShrugLower")
UPPER = MOVED[:8]
#: Who asks for one does not want the other.
OPPOSED = (
    ("mouthSmile", "mouthFrown"),
    ("browOuterUp", "browDown"),
    ("eyeWide", "eyeSquint"),
    ("eyeWide", "eyeBlink"),
)


@dataclass(frozen=True)
class Action:
    """A movement of some units. phrases: how it is said. subjects, done, doing: parts of further phrases ("eyebrows" "raised", "raising the" "eyebrows")."""

    units: dict[str, float]
    phrases: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    done: tuple[str, ...] = ()
    doing: tuple[str, ...] = ()
    sided: dict[str, str] = field(default_factory=dict)


def listed(text: str) -> tuple[str, ...]:
    """The words and phrases of a text, parted by commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


ACTIONS: dict[str, Action] = {
    "brows up": Action(
        {"browInnerUp": 0.9, "browOuterUp": 0.9},
        listed("high eyebrows, arched eyebrows, a raised brow line, forehead wrinkled by lifted brows"),
        listed("eyebrows, brows, both eyebrows"),
        listed("raised, up, lifted, high, pulled up, going up, arched, raised high"),
        listed("raising, lifting, arching, pulling up"),
        {"browOuterUp": "eyebrow"},
    ),
    "inner brows up": Action(
        {"browInnerUp": 0.95},
        listed(
            "slanted worried brows, brows like a roof, eyebrows up in the middle, eyebrows slanting upwards to the middle"
        ),
        listed("inner eyebrows, inner brows, inner ends of the eyebrows, inner corners of the brows"),
        listed("raised, up, lifted, pulled up, drawn up"),
        listed("raising, lifting"),
    ),
    "outer brows up": Action(
        {"browOuterUp": 0.95},
        (),
        listed("outer eyebrows, outer brows, outer ends of the eyebrows"),
        listed("raised, up, lifted, pulled up"),
        listed("raising, lifting"),
    ),
    "brows down": Action(
        {"browDown": 0.95},
        listed(
            "a furrowed brow, knitted brows, furrowed forehead, brows close together, glowering brows, a deep furrow between the eyebrows"
        ),
        listed("eyebrows, brows, both eyebrows"),
        listed("lowered, down, drawn together, pulled down, furrowed, knitted, drawn down, low"),
        listed("lowering, furrowing, knitting, pulling down, drawing together"),
        {"browDown": "eyebrow"},
    ),
    "frown": Action(
        {"browDown": 0.9, "mouthFrown": 0.45},
        listed("a frown, frowning, frowns, wearing a frown, knitting the brows in a frown"),
    ),
    "eyes wide": Action(
        {"eyeWide": 0.95},
        listed("big round eyes, staring eyes, wide eyes, wide-open eyes, eyes like an owl, upper eyelids raised"),
        listed("eyes, both eyes, eyelids"),
        listed("wide, wide open, widened, opened wide, open wide, torn open, round and big"),
        listed("widening, opening wide, tearing open"),
        {"eyeWide": "eye"},
    ),
    "eyes narrow": Action(
        {"eyeSquint": 0.95, "cheekSquint": 0.2},
        listed("squinting, a squint, narrow eyes, eyes like slits, tight eyelids, tense lower lids, blinded by the sun"),
        listed("eyes, both eyes, eyelids"),
        listed("narrowed, squinted, narrowed to slits, tightened, pinched, squeezed"),
        listed("narrowing, squinting, tightening, squeezing"),
        {"eyeSquint": "eye"},
    ),
    "lids down": Action(
        {"eyeBlink": 0.6},
        listed("half-closed eyes, drooping eyelids, heavy lids, sleepy eyes, half-shut eyes, hooded eyes, eyes nearly closed"),
        listed("eyes, eyelids, lids, upper lids"),
        listed("half closed, drooping, half shut, lowered, heavy, falling shut"),
        listed("half closing, lowering"),
    ),
    "cheeks up": Action(
        {"cheekSquint": 0.95},
        listed("round lifted cheeks, crow's feet, apple cheeks"),
        listed("cheeks, both cheeks"),
        listed("raised, lifted, up, pushed up, pulled up, bunched"),
        listed("raising, lifting, pushing up"),
        {"cheekSquint": "cheek"},
    ),
    "nose wrinkled": Action(
        {"noseSneer": 0.95},
        listed("a wrinkled nose, a scrunched nose, a crinkled nose, wrinkles on the nose, snarling nose, flared nostrils"),
        listed("nose, the nose"),
        listed("wrinkled, scrunched, crinkled, wrinkled up, scrunched up, pulled up"),
        listed("wrinkling, scrunching, crinkling"),
    ),
    "upper lip up": Action(
        {"mouthUpperUp": 0.9, "noseSneer": 0.25},
        listed("a curled upper lip, a snarl, snarling, baring the upper teeth"),
        listed("upper lip, the upper lip"),
        listed("raised, lifted, curled, pulled up, up"),
        listed("raising, lifting, curling"),
    ),
    "smile": Action(
        {"mouthSmile": 0.9, "cheekSquint": 0.5, "mouthDimple": 0.15},
        listed(
            "a smile, smiling, smiles, a smile on the lips, smiling mouth, wearing a smile, a friendly smile, a warm smile, a happy smile, "
            "flashing a smile, an open smile, smiling at the camera"
        ),
    ),
    "corners up": Action(
        {"mouthSmile": 0.9},
        listed("a mouth that turns up, upturned mouth"),
        listed("corners of the mouth, mouth corners, lip corners, mouth"),
        listed("up, raised, pulled up, turned up, lifted"),
        listed("raising, lifting, pulling up"),
        {"mouthSmile": "corner of the mouth"},
    ),
    "one-sided smile": Action(
        {"mouthSmileLeft": 0.85, "mouthDimpleLeft": 0.45},
        listed(
            "a crooked smile, a lopsided smile, a one-sided smile, a half-sided smile, smiling with one corner of the mouth, one corner of the mouth up, an asymmetric smile, "
            "a smile on the left side, smiling on the left"
        ),
    ),
    "right smile": Action(
        {"mouthSmileRight": 0.85, "mouthDimpleRight": 0.45},
        listed("a smile on the right side, smiling on the right, a smile with the right corner of the mouth"),
    ),
    "one brow up": Action(
        {"browOuterUpLeft": 0.9, "browInnerUp": 0.25},
        listed("one eyebrow raised, one brow up, a single raised eyebrow, raising one eyebrow, one eyebrow lifted, an eyebrow raised"),
    ),
    "corners down": Action(
        {"mouthFrown": 0.95},
        listed("downturned mouth, a mouth that turns down, a sad mouth line, an inverted smile, an upside-down smile"),
        listed("corners of the mouth, mouth corners, lip corners, mouth"),
        listed("down, turned down, pulled down, drooping, lowered, drawn down"),
        listed("lowering, pulling down, turning down"),
        {"mouthFrown": "corner of the mouth"},
    ),
    "dimples": Action(
        {"mouthDimple": 0.9},
        listed("dimples, dimples in the cheeks, dimpled cheeks, tightened mouth corners, tucked-in corners of the mouth"),
        (),
        (),
        (),
        {"mouthDimple": "dimple"},
    ),
    "stretched": Action(
        {"mouthStretch": 0.9},
        listed("tense stretched lips, a stretched mouth, a mouth pulled wide by tension"),
        listed("lips, mouth, corners of the mouth"),
        listed("stretched sideways, stretched, pulled sideways, drawn back, pulled back"),
        listed("stretching, pulling back, drawing back"),
    ),
    "grimace": Action(
        {"mouthStretch": 0.8, "eyeSquint": 0.6, "browDown": 0.6, "noseSneer": 0.4},
        listed("a grimace, grimacing, pulling a face, a distorted face, a contorted face"),
    ),
    "chin up": Action(
        {"mouthShrugLower": 0.85, "mouthFrown": 0.3},
        listed("a wrinkled chin, a trembling chin, a quivering lower lip, sulking, a sulk"),
        listed("chin, lower lip, chin boss"),
        listed("pushed up, raised, shrugged up"),
        listed("pushing up, shrugging"),
    ),
}  # fmt: skip

#: What says nothing about what words may move: things, people, other parts, and what belongs to speech. "|" parts them.
UNKNOWN = tuple(
    text.strip()
    for text in """
table | chair | car | bicycle | mountain | river | computer | keyboard | banana | apple | window | house | street lamp | bridge | cloud | train station |
umbrella | bottle | piano | violin | ocean | desert | forest | tree | flower | lawn mower | spoon | hammer | screwdriver | ladder | carpet | curtain |
a face | a person | a man | a woman | a child | people | somebody | a portrait | a photo of a person | a talking head | a human face | someone who talks |
a man with a beard | a woman with a hat | a girl with blond hair | a boy with short hair | curly black hair | straight hair | a lady in a dress | his picture | a passport photo of a man | a drawing of a girl | the head of a statue in a museum | the photograph of my neighbour | a wig | wrinkled clothes | a raised hand | crossed arms | a lifted arm | shoulders up | red hair | blue eyes | brown eyes | long hair | glasses | a hat | a scarf | an old woman | a young man | freckles | pale skin | a moustache |
make up | lipstick | ear rings | bald | a big nose | a pointed chin | thick lips | bushy eyebrows | grey eyebrows | long eyelashes | wearing sunglasses | green eye colour |
open mouth | mouth wide open | jaw dropped | the jaw hangs | lips pursed | kissing lips | puckered lips | tongue out | sticking out the tongue | closed mouth | lips pressed together |
round lips | blowing a kiss | chewing gum | whistling | saying aaah | talking | speaking | singing a song | whispering | yawning | teeth | biting the lip |
head turned left | looking to the left | looking up | looking away | nodding | shaking the head | tilted head | head down | eyes closed | blinking | winking | gaze to the right |
older | younger | thinner | fatter | more beautiful | brighter | darker | higher resolution | black and white | in the style of van gogh | sharper | zoom in | crop the picture |
the stock market fell today | interest rates rise | the train leaves at nine | please open the door | the meeting is on Monday | how do I install this program | what time is it |
two plus two is four | the capital of France is Paris | water boils at a hundred degrees | it will rain tomorrow | the cat sleeps on the sofa | dinner is ready | turn left at the traffic light |
the recipe needs two eggs | a football match | the quarterly report | a mathematical proof | compile the source code | database migration | a network cable | shipping costs |
chapter three | page twelve | terms and conditions | press any key | click here | error 404 | lorem ipsum dolor sit amet | foo bar baz | hello world | test | text | nothing | something |
none | everything | yes | no | maybe | hello | good morning | thank you | goodbye | who are you | my name is Peter | call me later | the quick brown fox jumps over the lazy dog |
blue | green | seventeen | triangle | square root | north | yesterday | centimetre | hydrogen | mitochondria | parliament | democracy | tax return | insurance | electricity |
a red sports car | a glass of milk | a slice of bread | a pair of shoes | a wooden box | a leather bag | an oil painting of a landscape | a satellite in orbit | a sailing boat | a hot air balloon |
asdf | qwerty | xyz | blah blah | zzz | hjkl | aaaa | 12345 | bnmvc | wdtrq | plooz gartik | frimble | snorgle wump | zibbet | quonk | dribnax | ov ip lar | tuvvel | krandor | mip mop |
kubernetes | python | gradient descent | neural network | learning rate | GPU memory | video codec | frame rate | bit rate | microphone | sound track | subtitles | background music |
breakfast | lunch | holiday in Spain | airport | passport | luggage | hotel room | swimming pool | tennis racket | chess board | newspaper | library | university | hospital | pharmacy |
to run | to jump | to sleep on a bed | to write a letter | to drive a lorry | to cook rice | to paint a wall | to buy a ticket | to climb a tree | to dig a hole | to repair a roof |
warm weather | cold water | heavy stone | fast computer | cheap ticket | empty glass | dirty floor | sharp knife | wide road | high tower | deep lake | narrow street | raised platform | lowered price |
up | down | left | right | big | small | long | short | the | of | and | more | less | very | half | one | two | side | corner | middle | mouth | nose | eyes | cheeks | chin | forehead | lips
""".replace("\n", " ").split("|")
    if text.strip()
)
