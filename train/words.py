"""Word lists of the built-in general items. Every fact here has one answer that does not change."""

from __future__ import annotations

WORDS = tuple(
    """
    anchor apple arrow autumn bakery balloon bamboo barrel basket battery beacon blanket bottle branch bridge bucket
    button cabin cable camera candle canoe carpet castle cellar chapel cherry circle cloud cobweb coffee column comet
    copper corner cotton cradle crystal curtain desert diamond dinner donkey drawer eagle engine fabric falcon feather
    fender ferry finger flame forest fossil fountain galaxy garage garden garlic ginger glacier glove granite guitar
    hammer harbor helmet herring hollow honey horizon insect island ivory jacket jungle kettle kitchen ladder lantern
    lemon library linen lizard magnet maple marble market meadow melon mirror monkey mountain muscle napkin needle
    nickel oasis ocean olive onion orbit orchard oyster paddle palace panther parcel pebble pencil pepper piano pillow
    planet pocket poplar potato pump quarry quilt rabbit raven ribbon river rocket saddle salmon sandal saucer scarf
    shadow shovel signal silver spider spring stable statue summit sunset tablet temple thistle thunder ticket timber
    tractor tulip tunnel turnip valley velvet violin walnut whistle willow window winter zipper
    """.split()  # noqa: SIM905
)

CAPITALS = dict(
    row.strip().split(":")
    for row in """
    Afghanistan:Kabul,Albania:Tirana,Algeria:Algiers,Angola:Luanda,Argentina:Buenos Aires,Armenia:Yerevan,
    Australia:Canberra,Austria:Vienna,Azerbaijan:Baku,Bangladesh:Dhaka,Belarus:Minsk,Belgium:Brussels,
    Bosnia and Herzegovina:Sarajevo,Botswana:Gaborone,Brazil:Brasília,Bulgaria:Sofia,Cambodia:Phnom Penh,
    Cameroon:Yaoundé,Canada:Ottawa,Chad:N'Djamena,Chile:Santiago,China:Beijing,Colombia:Bogotá,Croatia:Zagreb,
    Cuba:Havana,Cyprus:Nicosia,Denmark:Copenhagen,Ecuador:Quito,Egypt:Cairo,El Salvador:San Salvador,Estonia:Tallinn,
    Ethiopia:Addis Ababa,Finland:Helsinki,France:Paris,Gabon:Libreville,Georgia:Tbilisi,Germany:Berlin,Ghana:Accra,
    Greece:Athens,Guatemala:Guatemala City,Guinea:Conakry,Haiti:Port-au-Prince,Honduras:Tegucigalpa,Hungary:Budapest,
    Iceland:Reykjavik,India:New Delhi,Iran:Tehran,Iraq:Baghdad,Ireland:Dublin,Italy:Rome,Jamaica:Kingston,Japan:Tokyo,
    Jordan:Amman,Kenya:Nairobi,Kuwait:Kuwait City,Kyrgyzstan:Bishkek,Laos:Vientiane,Latvia:Riga,Lebanon:Beirut,
    Liberia:Monrovia,Libya:Tripoli,Lithuania:Vilnius,Luxembourg:Luxembourg,Madagascar:Antananarivo,Malawi:Lilongwe,
    Mali:Bamako,Malta:Valletta,Mexico:Mexico City,Moldova:Chișinău,Mongolia:Ulaanbaatar,Morocco:Rabat,
    Mozambique:Maputo,Namibia:Windhoek,Nepal:Kathmandu,New Zealand:Wellington,Nicaragua:Managua,Niger:Niamey,
    Nigeria:Abuja,Norway:Oslo,Oman:Muscat,Pakistan:Islamabad,Panama:Panama City,Paraguay:Asunción,Peru:Lima,
    Philippines:Manila,Poland:Warsaw,Portugal:Lisbon,Qatar:Doha,Romania:Bucharest,Russia:Moscow,Rwanda:Kigali,
    Saudi Arabia:Riyadh,Senegal:Dakar,Serbia:Belgrade,Slovakia:Bratislava,Slovenia:Ljubljana,Somalia:Mogadishu,
    South Korea:Seoul,Spain:Madrid,Sudan:Khartoum,Sweden:Stockholm,Syria:Damascus,Tajikistan:Dushanbe,
    Thailand:Bangkok,Tunisia:Tunis,Turkey:Ankara,Turkmenistan:Ashgabat,Uganda:Kampala,Ukraine:Kyiv,
    United Kingdom:London,Uruguay:Montevideo,Uzbekistan:Tashkent,Venezuela:Caracas,Vietnam:Hanoi,Zambia:Lusaka,
    Zimbabwe:Harare
    """.replace("\n", "").split(",")
)

_PAIRS = """
    hot-cold big-small up-down left-right day-night open-closed fast-slow hard-soft full-empty wet-dry young-old
    early-late high-low rich-poor light-dark strong-weak happy-sad near-far loud-quiet clean-dirty sharp-blunt
    deep-shallow thick-thin sweet-sour win-lose buy-sell push-pull start-stop true-false above-below before-after
    accept-reject arrive-depart ascend-descend attack-defend beautiful-ugly begin-end best-worst birth-death
    bitter-sweet brave-cowardly broad-narrow cheap-expensive create-destroy dangerous-safe easy-difficult
    enter-exit even-odd exterior-interior external-internal female-male first-last float-sink forget-remember
    freeze-melt friend-enemy generous-stingy give-take guilty-innocent heaven-hell heavy-light horizontal-vertical
    import-export include-exclude increase-decrease inhale-exhale inside-outside junior-senior known-unknown
    legal-illegal love-hate major-minor maximum-minimum more-less north-south east-west optimist-pessimist
    over-under past-future permanent-temporary plural-singular polite-rude positive-negative possible-impossible
    private-public question-answer raise-lower smooth-rough success-failure tall-short tight-loose victory-defeat
    visible-invisible war-peace wide-narrow wise-foolish
    """.split()  # noqa: SIM905
# a word that stands in two pairs has two opposites; it is asked for in neither
_ONCE = [pair.split("-") for pair in _PAIRS]
_SEEN = [word for pair in _ONCE for word in pair]
OPPOSITES = {
    word: other for left, right in _ONCE for word, other in ((left, right), (right, left)) if _SEEN.count(word) == 1
}

UNITS = (
    ("hours", "minutes", 60),
    ("minutes", "seconds", 60),
    ("days", "hours", 24),
    ("weeks", "days", 7),
    ("kilometres", "metres", 1000),
    ("metres", "centimetres", 100),
    ("centimetres", "millimetres", 10),
    ("kilograms", "grams", 1000),
    ("tonnes", "kilograms", 1000),
    ("litres", "millilitres", 1000),
    ("years", "months", 12),
    ("dozens", "pieces", 12),
    ("feet", "inches", 12),
    ("yards", "feet", 3),
)

TOPICS = tuple(
    """
    photosynthesis,the water cycle,how bread rises,black holes,public libraries,the French Revolution,compound interest,
    bicycle maintenance,vaccines,plate tectonics,the stock market,learning a language,tide and moon,chess openings,
    recycling,the printing press,sleep and memory,renewable energy,urban gardening,the Roman Empire,machine learning,
    coral reefs,time management,jazz,the Silk Road,volcanoes,healthy breakfasts,job interviews,first aid,beekeeping,
    the Great Wall of China,inflation,mountain hiking,keeping a diary,the immune system,lighthouses,tea,typography,
    train travel,stage fright
    """.replace("\n", "").split(",")
)
TOPICS = tuple(topic.strip() for topic in TOPICS)

FORMS = (
    "Explain {} in three sentences.",
    "Write a short poem about {}.",
    "List five facts about {}.",
    "What do beginners often get wrong about {}?",
    "Write a friendly e-mail to a colleague about {}.",
    "Summarise what you know about {} for a child of ten.",
    "Give two arguments for and two against spending school time on {}.",
    "Write three quiz questions about {}, with answers.",
    "Invent a headline and a first paragraph for a newspaper article about {}.",
    "Tell me something surprising about {}.",
)
