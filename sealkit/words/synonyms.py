"""Words that a judge treats as equal: a country and its people, a religion and its people, and everyday synonyms.

Plain English. Written after reading errors on the tuning half of the recorded data, never on the held-out half; words
that often mean something else are left out. Each line is one meaning; the first word stands for all of them. Words are
compared as stems, so inflections need not be listed unless they are irregular.
"""

_MEANINGS = """
afghanistan afghan
africa african
albania albanian
algeria algerian
america american americas us usa
argentina argentine argentinian
armenia armenian
asia asian
australia australian
austria austrian
belgium belgian
brazil brazilian
britain british briton england english uk
buddhism buddhist
bulgaria bulgarian
canada canadian
catholic catholicism
chile chilean
china chinese
colombia colombian
croatia croatian croat
cuba cuban
czechia czech
denmark danish dane
egypt egyptian
estonia estonian
ethiopia ethiopian
europe european
finland finnish finn
france french frenchman frenchmen
germany german
greece greek
hungary hungarian
india indian
indonesia indonesian
iran iranian persia persian
iraq iraqi
ireland irish
islam islamic muslim
israel israeli
italy italian
japan japanese
jewish judaism jew
kenya kenyan
korea korean
latvia latvian
lithuania lithuanian
mexico mexican
mongolia mongol mongolian
morocco moroccan
netherlands dutch holland
nigeria nigerian
norway norwegian
pakistan pakistani
peru peruvian
philippines philippine filipino
poland polish pole
portugal portuguese
protestant protestantism
prussia prussian
romania romanian
rome roman
russia russian
scandinavia scandinavian
scotland scottish scots scot
serbia serbian serb
spain spanish spaniard
sweden swedish swede
switzerland swiss
syria syrian
thailand thai
turkey turkish turk
ukraine ukrainian
venice venetian
vietnam vietnamese
wales welsh

ad ce
aid help assist support
allow permit enable let
appoint name nominate
area region zone territory
attack assault invade invasion
ban prohibit forbid outlaw
battle fight fought combat
bc bce
beat defeat
begin began begun start commence initiate
belief believe
big large huge vast great enormous massive sizable
boat ship vessel
book volume
border boundary frontier
build building structure
build built construct erect
business company firm corporation
buy bought purchase acquire
capture seize
car automobile
choose chose chosen choice select pick
city town
clergy priest
clothes clothing garment apparel
conservative tory tories
consider regard deem
cost price expense
country nation
danger hazard risk
destroy demolish
die died dead death kill
disease illness sickness
dispute disagreement conflict
doctor physician
doubt skepticism
earn income wage salary salaries pay paid
educate education teach taught
elderly old older
elect election vote
employ hire
end finish conclude terminate cease stop
enemy foe opponent
enter entry entrance
evidence proof
fail failure
famous renowned celebrated
farm farming agriculture agricultural
fast quick rapid speed
fear afraid
feed food eat ate diet nourishment
film movie
find found discover
flee fled escape
foreign overseas abroad
free freedom liberty
girl female woman women
give gave given donate grant
goal aim objective purpose
govern government rule
guard protect defend defence defense
harm damage hurt injure
heat heated hot warm
hide hidden conceal
house home dwelling
idea concept notion
illegal unlawful
important significant crucial vital
increase rise rose risen grow grew growth
infant baby babies newborn
inhabitant resident population
job occupation profession
join merge unite
jungle rainforest
keep kept retain maintain
king monarch
land ground soil
law legislation legal
lawyer attorney
lead led leader
leave left depart
liquid liquefied liquified
live life living
location place site
lose lost loss
love affection
main chief primary principal
make made create produce
marry married marriage wed
mathematician mathematics mathematical math
meet met meeting
merchant trader
method way technique
microbe germ pathogen microorganism
middle center centre
money finance financial fund
movement motion move
murder assassinate
music musical musician
near close
need require necessary
newspaper press
noble nobility aristocrat aristocracy
ocean sea
oppose opposition against
outside exterior
part portion section
peace treaty
people person human
plan scheme
plead beg
poor poverty
powerful strong strength
prison jail
problem issue difficulty
prove proven
pupil student
railroad railway train
reason cause
rebel revolt rebellion uprising
receive received obtain get got
refuse reject
religion religious faith
repair fix
result outcome consequence effect
return returned brought
rich wealthy wealth
road street
rule govern
same identical equal
scholar academic
scientist scientific science
seldom rarely
sell sold sale
send sent
servant slave
several multiple many numerous various
show display exhibit demonstrate
shrink shrank decline decrease reduce reduction diminish drop fall fell cut
similar alike
situation condition circumstance
skin dermal
small little tiny minor
speak spoke spoken speech
split divide separate
statement declaration
stay remain
steal stole stolen theft
store storage
storm hurricane
strange unusual
sun solar
surround encircle
take took taken
tax taxation
television tv
think thought
throw threw thrown
tool instrument implement
trade commerce commercial
travel journey trip
tree wood forest
trial tried
understand understood
university college
use used usage utilise utilize
victory win won
village settlement
visitor tourist tourism
war warfare
water aquatic
weapon arms
weather climate climatic
worker labour labor laborer
world global worldwide
worry concern
write wrote written author
wrong incorrect
year annual yearly
young youth juvenile
"""

MEANINGS: tuple[tuple[str, ...], ...] = tuple(tuple(line.split()) for line in _MEANINGS.splitlines() if line)
