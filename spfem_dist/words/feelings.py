"""Feelings in words, and what a face shows of them in units.

The six emotions are the prototypes by which the rendered heads act (a test holds them equal), without jaw and lips' rounding: those belong to speech.
The other feelings are our reading of FACS (Ekman and Friesen 1978) and of how compound expressions look (Du, Tao and Martinez, PNAS 2014).
"""

from __future__ import annotations

from dataclasses import dataclass

from spfem_dist.words.vocabulary import listed


@dataclass(frozen=True)
class Feeling:
    """A state of the whole face. units: by name, a name without a side means both. adjectives, nouns, adverbs, sayings: words for it."""

    units: dict[str, float]
    adjectives: tuple[str, ...]
    nouns: tuple[str, ...] = ()
    adverbs: tuple[str, ...] = ()
    sayings: tuple[str, ...] = ()


FEELINGS: dict[str, Feeling] = {
    "happy": Feeling(
        {"mouthSmile": 0.95, "cheekSquint": 0.85, "eyeSquint": 0.35, "mouthDimple": 0.2, "mouthUpperUp": 0.2},
        listed(
            "happy, joyful, cheerful, glad, delighted, merry, jolly, pleased, smiling, beaming, radiant, jubilant, gleeful, laughing, thrilled, "
            "overjoyed, sunny, good-humoured, in high spirits, on cloud nine"
            ", jovial, upbeat, content, contented, satisfied, exultant, rejoicing, exhilarated, enraptured, enchanted, blithe, light-hearted, carefree, bubbly, bouncy, chipper, perky, festive, celebrating, giggling, tickled pink, over the moon, in seventh heaven, walking on air, on top of the world, grateful, optimistic, vivacious, exuberant, rapturous, beatific, lucky, fortunate, enjoying himself, full of beans, excited, enthusiastic, laughing out loud, gratified, buoyant, charmed, pleased as punch"
            ", rejoices, laughs, laughter, hilarious fun, sunny smile, as happy as can be, gaiety, jubilation, exultation, high, uplifted, rhapsodic, triumphantly happy, wonderful mood, great day, jaunty, convivial, sparkling, glowing, tickled, joyous, blessed, gleaming with joy, in raptures, delirious with joy"
        ),
        listed("happiness, joy, cheerfulness, delight, glee, pleasure, good mood"),
        listed("happily, cheerfully, joyfully, gladly"),
        listed(
            "she has just won the lottery, he hears wonderful news, like meeting an old friend, bursting with joy, so happy to see you"
        ),
    ),
    "sad": Feeling(
        {
            "browInnerUp": 1.0,
            "browDown": 0.4,
            "mouthFrown": 1.0,
            "mouthShrugLower": 0.6,
            "eyeSquint": 0.1,
            "eyeBlink": 0.2,
        },
        listed(
            "sad, unhappy, sorrowful, gloomy, melancholy, melancholic, depressed, miserable, dejected, tearful, mournful, grieving, crying, weeping, "
            "downcast, wretched, low-spirited, about to cry, in mourning, down in the dumps"
            ", woeful, sorry, lamenting, bereaved, inconsolable, desolate, disconsolate, doleful, dismal, glum, low, blue, bleak, hurt, disappointed, discouraged, disheartened, heavy-hearted, broken, hopeless, in despair, despairing, lonely, abandoned, homesick, regretful, sobbing, wailing, blubbering, morose, sombre, down, dispirited, crushed, devastated, defeated, suffering a loss, teary-eyed, mopey, pitiful, lovelorn"
            ", sobs, weeps, cries, sheds tears, lachrymose, plaintive, lamentable, sorrow-stricken, grief-stricken, griefstricken, aggrieved, saddened, deserted, forsaken, woebegone, bereft, lost and alone, pining, hangdog, long-faced, sullen, dreary, drooping, spiritless, broken-spirited, let down, hopelessness, despair, desolation, loneliness, regret, disappointment, tearfulness, rejected, unloved, pitiable"
        ),
        listed("sadness, sorrow, grief, gloom, melancholy, misery, unhappiness, mourning"),
        listed("sadly, sorrowfully, mournfully, unhappily"),
        listed(
            "someone close has died, at a funeral, on the verge of tears, he has lost everything he had, tears in her eyes"
        ),
    ),
    "angry": Feeling(
        {
            "browDown": 1.0,
            "browOuterUp": 0.35,
            "eyeWide": 0.35,
            "eyeSquint": 0.35,
            "noseSneer": 0.75,
            "mouthFrown": 0.65,
            "mouthUpperUp": 0.2,
        },
        listed(
            "angry, mad with anger, enraged, irate, cross, annoyed, irritated, hostile, outraged, aggressive, fierce, resentful, raging, wrathful, "
            "indignant, exasperated, foaming with rage, in a rage, hot-tempered, vengeful"
            ", infuriated, fuming, wrath-filled, irascible, riled, provoked, aggravated, vexed, piqued, bad-tempered, ill-tempered, grumpy, cranky, cantankerous, growling, snarling with rage, ferocious, violent, threatening, menacing, belligerent, combative, hateful, spiteful, malicious, bloodthirsty, hot under the collar, seeing red, up in arms, boiling, burning with anger, steaming, ticked off, pissed off, worked up, frenzied, rabid, brutal, savage, offended, bristling, storming, cursing"
            ", rages, fumes, rants, shouts in anger, blazing, ireful, ire, hopping mad, irked, galled, nettled, inflamed, hateful glare, glaring, exploding, explosive, burning, smouldering, boiling over, in a temper, tantrum, raging bull, wild with rage, venomous, acrimonious, antagonistic, contentious, choleric, huffy, miffed, displeased, sulky, hatred, resentment, vengeance, temper, hissing"
        ),
        listed("anger, rage, wrath, hostility, irritation, annoyance, aggression, indignation"),
        listed("angrily, irritably, aggressively, fiercely"),
        listed(
            "ready to shout at somebody, someone stole his car, about to lose his temper, an angry shouting boss, boiling with anger"
        ),
    ),
    "surprised": Feeling(
        {"browInnerUp": 0.9, "browOuterUp": 1.0, "eyeWide": 1.0},
        listed(
            "surprised, astonished, amazed, startled, stunned, astounded, taken aback, caught off guard, wide-eyed with surprise, speechless with surprise, "
            "staggered, bewildered by a surprise"
            ", amazed beyond words, astonished beyond belief, awestruck, awed, wonderstruck, dazed, dazzled, jolted, shocked, in shock, blown away, bowled over, thrown, floored, flummoxed, stupefied, agog, gaping in wonder, open-mouthed with surprise, speechless, unprepared, surprised out of their mind, caught unawares, wowed, staggered by the news, electrified, boggled, overwhelmed by a surprise, wide-eyed, lost for words"
            ", gasps, wows, wow, oh my god, what a surprise, unbelievable, jumps in surprise, knocked sideways, flustered by the news, confounded, nonbelieving eyes, startle, startling news, sudden shock, marvelling, marveling, wondering, amaze, stun, jaw-dropping, mind-blown, taken by surprise, bolt from the blue, spellbound, rattled, staggering, astounding"
        ),
        listed("surprise, astonishment, amazement, wonder, stupefaction"),
        listed("surprisedly, in surprise, with astonishment, amazedly"),
        listed(
            "she did not expect that at all, like seeing a rabbit come out of a hat, he cannot believe his eyes, an unexpected gift"
        ),
    ),
    "fear": Feeling(
        {
            "browInnerUp": 1.0,
            "browOuterUp": 0.45,
            "browDown": 0.15,
            "eyeWide": 1.0,
            "mouthStretch": 0.95,
            "mouthFrown": 0.5,
        },
        listed(
            "afraid, scared, frightened, fearful, terrified, panicked, anxious, alarmed, spooked, nervous, full of dread, scared to death, panicky, "
            "terror-stricken, in fear of their life, frightened out of their wits"
            ", terror-struck, panicking, cowering, trembling, shaking with fear, quaking, shuddering, timid, fainthearted, cowardly, jumpy, jittery, skittish, edgy, on edge, paranoid, phobic, threatened, daunted, hunted, trapped, haunted, startled by a threat, scared stiff, frozen with fear, paralysed by terror, white as a sheet, afraid for her life, hysterical, desperate, insecure, in danger, menaced, bullied, cowed, frozen, screaming in terror, scary movie victim, worried sick"
            ", screams, trembles, panics, flees, shivers, fright-filled, scare, scary, terrifying, terrorized, terrorised, terrorist attack nearby, nightmare, in a nightmare, startled and afraid, wary of danger, nervous wreck, aghast with fear, creeped out, freaked out, freaking out, unnerved, shaken, quivering, dreading, affrighted, faint with fear, foreboding, trepidation, stage fright, phobia, cold sweat, helpless, vulnerable"
        ),
        listed("fear, terror, panic, dread, fright, anxiety, alarm"),
        listed("fearfully, anxiously, nervously, in terror"),
        listed(
            "a monster stands behind the door, a snake is right in front of her, running from danger, he sees a ghost, someone points a gun at him"
        ),
    ),
    "disgusted": Feeling(
        {
            "noseSneer": 1.0,
            "mouthUpperUp": 0.7,
            "mouthFrown": 0.75,
            "browDown": 0.65,
            "cheekSquint": 0.5,
            "eyeSquint": 0.5,
        },
        listed(
            "disgusted, revolted, repulsed, nauseated, sickened, queasy, put off by a smell, about to vomit, feeling sick, squeamish, in disgust"
            ", disgusted by food, nauseous, gagging, retching, vomiting, ill, bilious, offended by a stench, turned off, put off, revolting taste, abhorring, detesting, averse, finicky, disliking, hating the taste, eww, ugh, yikes it stinks, icky, foul, repulsive, stomach-turning, smelling garbage, tasting something bitter, sour-faced, grimacing at a smell, sick to the stomach, filth before the eyes, detestation, abomination, repulsion, tasting spoiled milk"
            ", pukes, vomits, gags, barfs, throws up, bleh, blech, phew it stinks, what a stink, nasty, nasty taste, vile, rotten, filthy, sickening, disgusting, revolting, repugnant, distasteful, offensive smell, stomach turns, ewww, rank smell, unappetizing, slimy, mouldy food, contaminated, toilet smell, odious, hateful taste, hates the smell, spits it out"
        ),
        listed("disgust, revulsion, nausea, repugnance, distaste, aversion"),
        listed("disgustedly, with disgust, in revulsion"),
        listed(
            "smelling rotten eggs, biting into spoiled food, a hair in the soup, it stinks terribly here, touching something slimy"
        ),
    ),
    "contempt": Feeling(
        {"mouthSmileLeft": 0.55, "mouthDimpleLeft": 0.7, "eyeSquint": 0.3, "eyeBlink": 0.15, "browOuterUpLeft": 0.25},
        listed(
            "contemptuous, scornful, disdainful, dismissive, derisive, mocking, looking down on others"
            ", supercilious, patronizing, snobbish, snooty, stuck-up, superior, jeering, taunting, ridiculing, belittling, sarcastic, lofty, aloof, cold and superior, sniffy, despising, insolent, scoffing"
            ", disrespectful, snobby, pompous, high and mighty, snotty, deriding, ridicule, holier than thou, patronising, disregard, scoffs, rolls his eyes at you, lordly, overbearing"
        ),
        listed("contempt, scorn, disdain, derision, mockery"),
        listed("contemptuously, scornfully, disdainfully"),
        listed("he thinks you are beneath him, you are not worth her time"),
    ),
    "neutral": Feeling(
        {},
        listed(
            "neutral, expressionless, blank, deadpan, emotionless, impassive, composed, at rest, without any emotion, indifferent, poker-faced, "
            "inexpressive, calm and neutral, showing nothing, flat"
            ", calm, relaxed, unexcited, dispassionate, unaffected, unconcerned, without feeling, stoic, stolid, wooden, robotic, detached, quiet, still, serene, peaceful, tranquil, placid, at ease, unreadable, inscrutable, straight-faced, emotion-free, unfazed, untouched, sober, ordinary, normal, plain, lacking expression, void of feeling, even-tempered"
            ", staid, cool, poised, collected, unruffled, level-headed, imperturbable, nonreactive, unresponsive, apathetic and blank, vacant, empty, dead-pan, mask-like, statue, like a statue, passport picture, zero emotion, resting, resting face, default face, motionless, steady, reserved, matter-of-fact, businesslike"
        ),
        listed("no expression, no emotion, neutrality, composure, indifference"),
        listed("neutrally, impassively, blankly"),
        listed("a poker face, a face like a passport photo, the face is relaxed and shows nothing"),
    ),
    "amused": Feeling(
        {"mouthSmile": 0.65, "cheekSquint": 0.5, "eyeSquint": 0.2, "browOuterUp": 0.25, "browInnerUp": 0.2},
        listed(
            "amused, entertained, tickled, playful, mischievous, jesting"
            ", laughing quietly, giggly, humorous, joking, comical, witty, cheeky, impish, teasing, silly, cracking up"
            ", chortling, sniggering, snickering, tittering, droll, funny, jokey, laughs at a joke, joke, comedy, prankster, roguish, puckish, facetious"
        ),
        listed("amusement, fun, mischief"),
        listed("amusedly, playfully"),
        listed("someone told a good joke, watching a funny film"),
    ),
    "tender": Feeling(
        {"mouthSmile": 0.5, "cheekSquint": 0.35, "browInnerUp": 0.35, "eyeBlink": 0.1},
        listed(
            "loving, tender, affectionate, warm, kind, friendly, gentle, compassionate, touched, moved"
            ", caring, motherly, sweet, soft-hearted, in love, adoring, fond, devoted, sympathetic, understanding, welcoming, benevolent"
            ", nurturing, fatherly, cuddly, romantic, enamoured, amorous, empathetic, merciful, hospitable, goodhearted, kindhearted, cordial, sentimental"
        ),
        listed("love, tenderness, affection, warmth, kindness, compassion"),
        listed("lovingly, tenderly, kindly, warmly"),
        listed("a mother looking at her baby, looking at a puppy"),
    ),
    "proud": Feeling(
        {
            "mouthSmile": 0.45,
            "mouthDimple": 0.35,
            "browOuterUp": 0.25,
            "browInnerUp": 0.2,
            "eyeBlink": 0.15,
            "mouthShrugLower": 0.2,
        },
        listed(
            "proud, self-satisfied, confident, self-assured, triumphant, victorious"
            ", dignified, accomplished, successful, winning, boastful, regal, honoured, sure of himself"
            ", self-confident, bold, majestic, noble, champion, glorious, exalted, assertive, self-esteem, winner, heroic"
        ),
        listed("pride, confidence, triumph, self-satisfaction"),
        listed("proudly, confidently, triumphantly"),
        listed("she has won the race, he shows off his medal"),
    ),
    "smug": Feeling(
        {
            "mouthSmileLeft": 0.7,
            "mouthSmileRight": 0.3,
            "mouthDimple": 0.45,
            "eyeSquint": 0.3,
            "eyeBlink": 0.2,
            "browOuterUpLeft": 0.35,
        },
        listed(
            "smug, gloating, cocky, arrogant, full of himself"
            ", complacent, conceited, self-righteous, snide, pleased with himself, vain, bigheaded"
            ", self-important, swaggering, bragging, cocksure, egotistical, self-congratulatory, swollen-headed, gloats"
        ),
        listed("smugness, arrogance"),
        listed("smugly, arrogantly"),
    ),
    "worried": Feeling(
        {"browInnerUp": 0.95, "browDown": 0.45, "eyeWide": 0.2, "mouthFrown": 0.45, "mouthStretch": 0.2},
        listed(
            "worried, concerned, troubled, uneasy, distressed, fretful, preoccupied"
            ", anxious about someone, stressed, tense, restless, disquieted, bothered, upset, burdened, careworn, agitated, nervous and concerned, disturbed, harried, hassled"
            ", fearful for someone, edgy with worry, frets, worries, solicitous, angst, angsty, overwrought, stress, nervousness, pressure, tormented by doubts, panicky thoughts, on tenterhooks, perplexed and concerned, unsettled, overburdened, anxious wait, strained"
        ),
        listed("worry, concern, unease, distress"),
        listed("worriedly, with concern, uneasily"),
        listed("waiting for the doctor's results, her child is late"),
    ),
    "tired": Feeling(
        {"eyeBlink": 0.55, "browInnerUp": 0.15, "mouthFrown": 0.25},
        listed(
            "tired, sleepy, exhausted, drowsy, weary, worn out, fatigued"
            ", weary-eyed, burnt out, drained, sleep-deprived, dozy, lethargic, half asleep, spent, beat, bleary-eyed, dead tired, pooped"
            ", nods off, dozing, bushed, tuckered out, run-down, wiped out, shattered from work, dead on his feet, zonked, sluggish, somnolent, enervated, insomnia, jet-lagged, weariness, heavy-eyed"
        ),
        listed("tiredness, exhaustion, sleepiness, fatigue"),
        listed("tiredly, sleepily, wearily"),
        listed("awake all night, just got out of bed, he can hardly keep his eyes open"),
    ),
    "bored": Feeling(
        {"eyeBlink": 0.45, "mouthFrown": 0.35, "browOuterUp": 0.15, "mouthShrugLower": 0.2},
        listed(
            "bored, uninterested, listless, apathetic, fed up"
            ", disinterested, jaded, unenthusiastic, weary of it all, dull, blasé, yawning with boredom, indifferent and tired"
            ", blase, uninspired, monotony, tedium, wearied, ho-hum, tedious, ennui, bored to death, bored stiff, yawns with boredom"
        ),
        listed("boredom, apathy, listlessness"),
        listed("boredly, listlessly"),
        listed("a lecture that never ends, he has heard this story too often"),
    ),
    "skeptical": Feeling(
        {
            "browOuterUpLeft": 0.9,
            "browInnerUp": 0.3,
            "browDownRight": 0.6,
            "eyeSquint": 0.45,
            "mouthFrown": 0.35,
            "mouthShrugLower": 0.2,
        },
        listed(
            "skeptical, doubtful, unconvinced, incredulous, disbelieving, questioning"
            ", sceptical, distrusting a claim, unsure about it, in doubt, not buying it, wondering if it is true, hesitant to believe"
            ", sceptic, suspicious of a claim, questionable, doubting, disbelief, leery of the claim, wary of promises, are you kidding, really, agnostic, unbeliever, mistrusting, jaundiced"
        ),
        listed("doubt, disbelief, skepticism"),
        listed("skeptically, doubtfully, questioningly"),
        listed("he does not believe a word of it, are you serious"),
    ),
    "suspicious": Feeling(
        {"eyeSquint": 0.85, "browDown": 0.7, "cheekSquint": 0.2, "mouthFrown": 0.25},
        listed(
            "suspicious, distrustful, wary, mistrustful, sly"
            ", cautious, watchful, guarded, leery, scheming, shifty, cunning, calculating"
            ", untrusting, furtive, sneaky, devious, crafty, conspiratorial, paranoid of others, vigilant, eyeing, snooping"
        ),
        listed("suspicion, distrust, mistrust"),
        listed("suspiciously, warily, distrustfully"),
        listed("she knows that you are lying, keeping an eye on a thief"),
    ),
    "confused": Feeling(
        {"browDown": 0.65, "browInnerUp": 0.5, "eyeSquint": 0.35, "mouthFrown": 0.25, "mouthStretch": 0.15},
        listed(
            "confused, puzzled, perplexed, baffled, lost, clueless"
            ", bewildered, disoriented, muddled, mystified, uncertain, at a loss, not understanding, mixed up, uncomprehending, stumped, unsure"
            ", befuddled, addled, discombobulated, dazed and confused, foggy, disconcerted, unclear, what does that mean, huh, does not get it, head-scratching, flummoxed by a riddle"
        ),
        listed("confusion, puzzlement, perplexity"),
        listed("confusedly, in confusion"),
        listed("he does not understand the question, trying to make sense of it"),
    ),
    "concentrated": Feeling(
        {"browDown": 0.65, "eyeSquint": 0.5, "mouthDimple": 0.25},
        listed(
            "concentrated, focused, thoughtful, pensive, attentive, serious, stern, determined, resolute"
            ", absorbed, engrossed, intent, studious, grave, strict, earnest, contemplative, deep in thought, thinking hard, alert, severe"
            ", studying, single-minded, diligent, observant, rapt, analytical, meditative, brooding, ruminating, solemn, austere, no-nonsense, resolve, steely, mentally busy"
        ),
        listed("concentration, focus, determination, seriousness"),
        listed("intently, seriously, thoughtfully, sternly"),
        listed("solving a hard problem, threading a needle"),
    ),
    "pained": Feeling(
        {
            "browDown": 0.85,
            "eyeSquint": 0.9,
            "cheekSquint": 0.75,
            "noseSneer": 0.45,
            "mouthStretch": 0.6,
            "mouthUpperUp": 0.35,
            "eyeBlink": 0.3,
            "browInnerUp": 0.2,
        },
        listed(
            "pained, hurting, in pain, suffering, aching, wincing, tormented"
            ", injured, wounded, sore, stung, tortured, in torment, crying out in pain, smarting, hurt badly, cramping"
            ", excruciating, in agony, crippled by pain, wrenching, throbbing, headache, migraine, wounded soldier, stubbed toe, writhing, harrowed, burning pain, ow, ouch"
        ),
        listed("pain, agony, suffering, torment"),
        listed("painfully, in pain"),
        listed("he hit his thumb with a hammer, a toothache"),
    ),
    "embarrassed": Feeling(
        {"mouthSmile": 0.35, "mouthDimple": 0.4, "browInnerUp": 0.45, "eyeBlink": 0.3},
        listed(
            "embarrassed, ashamed, shy, bashful, awkward, self-conscious"
            ", blushing, humiliated, coy, abashed, red-faced, ill at ease, guilty, apologetic, timid and smiling, sorry for himself"
            ", chagrined, demure, modest, flustered, disgraced, shamefaced, red with shame, tongue-tied, sorry, remorseful, caught in the act, bashfulness, awkwardness, guilt, contrite"
        ),
        listed("embarrassment, shame, shyness"),
        listed("shyly, bashfully, awkwardly"),
        listed("she has forgotten his name, he spilled coffee on his shirt"),
    ),
    "hopeful": Feeling(
        {"browInnerUp": 0.7, "browOuterUp": 0.3, "eyeWide": 0.3, "mouthSmile": 0.4},
        listed(
            "hopeful, expectant, eager, curious, interested, pleading, begging"
            ", imploring, entreating, wishful, longing, yearning, inquisitive, fascinated, intrigued, encouraged, looking forward"
            ", aspiring, beseeching, wide-eyed hope, prayerful, praying, wistful, desirous, keen, avid, anticipating, anticipation, impatient for the news, optimism, inquiring"
        ),
        listed("hope, expectation, curiosity, eagerness, interest"),
        listed("hopefully, expectantly, curiously, eagerly"),
        listed("waiting for good news, asking for a favour"),
    ),
    "bitter": Feeling(
        {
            "mouthSmile": 0.45,
            "mouthFrown": 0.3,
            "mouthDimple": 0.45,
            "browInnerUp": 0.5,
            "browDown": 0.45,
            "eyeSquint": 0.3,
        },
        listed(
            "bitter, wry, rueful, sardonic, ironic, disillusioned"
            ", resigned, embittered, acrid, acerbic, joyless smile, forced to smile"
            ", grudging, caustic, sour, jaded by life, world-weary, sarcasm, gallows humour, bittersweet, grim humour, mocking himself"
        ),
        listed("bitterness, irony, resignation"),
        listed("bitterly, wryly, ruefully"),
        listed("making the best of a bad deal"),
    ),
}
