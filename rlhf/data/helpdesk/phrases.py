"""Every phrase that texts of the helpdesk world are assembled from.

Where a sentence has a mark beside it, the mark is what a judge recognises the sentence by, even half-quoted;
marks are lower case without punctuation and occur in no other phrase.
"""

GREETINGS = ("", "Hello.", "Good morning.", "Hi there.", "Excuse me.", "Hey.")
CONTEXTS = (
    "",
    "My sister wants to know.",
    "I am new in town.",
    "I ask for my neighbour.",
    "I could not find it anywhere.",
    "I am in a hurry.",
    "We are coming by bus.",
    "My name is Anna.",
)
"""What a customer says before the question."""

OPENERS = {
    "Thank you for asking.": "thank you for",
    "Thanks for your question.": "thanks for",
    "I am glad to help.": "glad to",
    "Of course, with pleasure.": "with pleasure",
}
CLOSERS = {
    "Have a lovely day.": "lovely day",
    "Please ask us any time.": "please",
    "We hope to see you soon.": "see you soon",
    "We look forward to your visit.": "look forward",
}
RUDE = {
    "What a stupid question.": "stupid",
    "Are you too lazy to look it up?": "lazy",
    "Only an idiot would ask that.": "idiot",
    "Stop wasting my time.": "wasting my time",
    "Go and bother somebody else.": "bother",
    "Learn to read the sign.": "learn to read",
}
RAMBLING = {
    "Well, where was I, one thing leads to another, as it does.": "where was i",
    "My cousin once worked here, or maybe it was next door.": "my cousin",
    "It all depends, in a way, on how you look at it.": "it all depends",
    "Back then things were different, and people talked for hours.": "back then",
    "Anyway, that is a long story, and it goes on and on.": "long story",
    "I was thinking about it on the train, and then again later.": "on the train",
}
TRIVIA = {
    "Did you know that honey never goes bad?": "honey",
    "By the way, an octopus has three hearts.": "octopus",
    "Fun fact: bananas are berries.": "berries",
    "Did you know that snails can sleep for years?": "snails",
    "By the way, the moon moves away from us.": "moon",
    "Fun fact: a group of crows is called a murder.": "crows",
    "Did you know that cows have best friends?": "cows",
    "By the way, sharks are older than trees.": "sharks",
}

PRODUCTS = (
    "lamp", "kettle", "chair", "clock", "mirror", "basket", "blanket", "candle", "teapot", "ladder", "hammer",
    "bucket", "pillow", "carpet", "vase", "notebook", "umbrella", "radio",
)  # fmt: skip
PRICE_QUESTIONS = (
    "What does the {product} cost?",
    "How much is the {product}?",
    "What is the price of the {product}?",
    "How much do you want for the {product}?",
    "Can you tell me the price of the {product}?",
    "What would I pay for the {product}?",
)
PRICE_STATEMENTS = (
    "The {product} costs {value}.",
    "The {product} is {value}.",
    "You pay {value} for the {product}.",
    "The price of the {product} is {value}.",
)

SHOPS = ("harbour", "station", "market")
DAYS = ("weekdays", "Saturday")
HOURS_QUESTIONS = (
    "When does the {shop} shop {verb} on {day}?",
    "At what time does the {shop} shop {verb} on {day}?",
    "On {day}, when does the {shop} shop {verb}?",
    "Can you tell me when the {shop} shop will {verb} on {day}?",
    "What time will the {shop} shop {verb} on {day}?",
    "I want to visit the {shop} shop on {day}, when does it {verb}?",
)
HOURS_STATEMENTS = (
    "The {shop} shop {verb}s at {value} on {day}.",
    "On {day} the {shop} shop {verb}s at {value}.",
    "It is {value} when the {shop} shop {verb}s on {day}.",
)

SUM_QUESTIONS = (
    "What is {a} plus {b}?",
    "How much is {a} and {b} together?",
    "What do {a} and {b} make?",
    "Can you add {a} and {b} for me?",
    "What is the sum of {a} and {b}?",
    "I have {a} points and get {b} more, how many is that?",
)
SUM_STATEMENTS = (
    "{a} plus {b} is {value}.",
    "{a} and {b} make {value}.",
    "The sum of {a} and {b} is {value}.",
    "Together {a} and {b} come to {value}.",
)

POLICY_QUESTIONS = (
    "What is your rule on {topic}?",
    "What should I know about {topic}?",
    "Can you tell me about {topic}?",
    "How do you handle {topic}?",
    "What do you say about {topic}?",
    "I have a question about {topic}, what is the rule?",
)
POLICY_STATEMENTS = ("{Rule} {value}.", "Our rule is that {rule} {value}.", "In our shops {rule} {value}.")
POLICIES = {
    "returns": ("things can be returned", ("within 14 days", "within 30 days", "within 60 days")),
    "the guarantee": ("the guarantee lasts", ("one year", "two years", "five years")),
    "delivery": ("delivery takes", ("two days", "four days", "a week")),
    "gift wrapping": ("gifts are wrapped", ("for free", "for a small fee", "in winter only")),
    "dogs": ("dogs", ("may come in", "must wait outside", "have to be carried")),
    "payment": ("you pay", ("by card", "in cash", "by invoice")),
    "parking": ("cars are parked", ("behind the building", "across the street", "under the bridge")),
    "repairs": ("repairs are done", ("in our workshop", "by the maker", "at the counter")),
    "vouchers": ("vouchers are sold", ("at the till", "in the lobby", "over the phone")),
    "discounts": ("students get", ("five percent off", "ten percent off", "twenty percent off")),
    "picking up orders": ("orders wait", ("at the back door", "on the first floor", "in the cellar")),
    "lost things": ("lost things are kept", ("for a month", "for half a year", "until they are found")),
}
"""Topic -> what the rule is about, and the values it may have (lower case); a seed picks the right one."""

CHATTER = (
    "Has anyone tried this before?",
    "Does anyone know?",
    "Asking again since nobody answered.",
    "Who can help me with this?",
    "Is anybody there?",
)
"""What people write on a forum around a question."""
HEADINGS = ("Notes for the staff.", "From the leaflet.", "Good to know.", "List of the week.")
