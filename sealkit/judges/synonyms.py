"""Words that a judge takes for the same: a country and its people, and a few everyday pairs.

Kept short on purpose. Each line is one meaning; the first word stands for all of them. Words are compared as stems, so
inflections need not be listed unless they are irregular.
"""

_MEANINGS = """
america american usa us
australia australian
austria austrian
belgium belgian
brazil brazilian
britain british briton england english uk
canada canadian
catholic catholicism
china chinese
denmark danish dane
egypt egyptian
europe european
finland finnish finn
france french frenchman frenchmen
germany german
greece greek
hungary hungarian
iceland icelandic
india indian
ireland irish
israel israeli
italy italian
japan japanese
mexico mexican
netherlands dutch holland
norway norwegian
poland polish pole
portugal portuguese
rome roman
russia russian
scotland scottish scots scot
spain spanish spaniard
sweden swedish swede
switzerland swiss
turkey turkish turk
wales welsh

bc bce
begin began begun start commence
big large huge vast great
build built construct
buy bought purchase
car automobile
conservative tory tories
die died dead death kill
doctor physician
elderly old older
film movie
increase rise rose grow grew growth
infant baby babies newborn
make made create
microbe germ pathogen
return returned brought
shrink shrank decline decrease reduce reduction diminish drop fall fell
world global worldwide
write wrote written
"""

MEANINGS: tuple[tuple[str, ...], ...] = tuple(tuple(line.split()) for line in _MEANINGS.splitlines() if line)
