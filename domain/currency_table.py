"""The table of ``domain.currencies``: code, digits, first year (from 1970 on), last day, name.

Codes, names, digits of listed currencies and months of withdrawal come from ISO 4217: list one as published on
2026-01-01, and list three (withdrawn codes) as of 2026-02. CLDR 49 gives the first year and the day on which legal
tender ended. Where both sources give an end, the later one counts. Digits of a withdrawn code are those of the newest
edition that listed it (2014 to 2026), else those of ISO 4217 amendment 140 (2008), else CLDR's. Codes without minor
units (XAU, XXX, XFO, ...) are not money and are left out.

Add a row for a new currency, and the last day of a currency that ends. Never remove a row or change its digits: stored
amounts are read by them. Tests compare the table with the package ``iso4217`` and with CLDR.
"""

TABLE = """
ADP 0 -    2003-07-31 Andorran Peseta
AED 2 1973 -          UAE Dirham
AFA 2 -    2003-01-31 Afghani
AFN 2 2002 -          Afghani
ALK 2 -    1989-12-31 Old Lek
ALL 2 -    -          Lek
AMD 2 1993 -          Armenian Dram
ANG 2 -    2025-06-30 Netherlands Antillean Guilder
AOA 2 1999 -          Kwanza
AOK 2 1977 1991-03-31 Kwanza
AON 2 1990 2000-02-29 New Kwanza
AOR 2 1995 2000-02-29 Kwanza Reajustado
ARA 2 1985 1992-01-31 Austral
ARP 2 1983 1985-07-31 Peso Argentino
ARS 2 1992 -          Argentine Peso
ARY 2 -    1990-12-31 Peso
ATS 2 -    2002-03-31 Schilling
AUD 2 -    -          Australian Dollar
AWG 2 1986 -          Aruban Florin
AYM 2 -    2005-10-31 Azerbaijan Manat
AZM 2 1993 2006-12-31 Azerbaijanian Manat
AZN 2 2006 -          Azerbaijan Manat
BAD 2 1992 1998-07-31 Dinar
BAM 2 1995 -          Convertible Mark
BBD 2 1973 -          Barbados Dollar
BDT 2 1972 -          Taka
BEC 2 1970 1990-03-31 Convertible Franc
BEF 0 -    2002-03-31 Belgian Franc
BEL 2 1970 1990-03-31 Financial Franc
BGJ 2 -    1990-12-31 Lev A/52
BGK 2 -    1990-12-31 Lev A/62
BGL 2 -    2003-11-30 Lev
BGN 2 1999 2026-01-31 Bulgarian Lev
BHD 3 -    -          Bahraini Dinar
BIF 0 -    -          Burundi Franc
BMD 2 1970 -          Bermudian Dollar
BND 2 -    -          Brunei Dollar
BOB 2 1987 -          Boliviano
BOP 2 -    1987-02-28 Peso boliviano
BOV 2 -    -          Mvdol
BRB 2 -    1986-03-31 Cruzeiro
BRC 2 1986 1989-02-28 Cruzado
BRE 2 1990 1993-08-01 Cruzeiro
BRL 2 1994 -          Brazilian Real
BRN 2 1989 1990-03-31 New Cruzado
BRR 2 1993 1994-07-31 Cruzeiro Real
BSD 2 -    -          Bahamian Dollar
BTN 2 1974 -          Ngultrum
BUK 2 -    1990-02-28 Kyat
BWP 2 1976 -          Pula
BYB 0 1994 2001-01-31 Belarusian Ruble
BYN 2 2016 -          Belarusian Ruble
BYR 0 2000 2017-01-31 Belarusian Ruble
BZD 2 1974 -          Belize Dollar
CAD 2 -    -          Canadian Dollar
CDF 2 1998 -          Congolese Franc
CHC 2 -    2004-11-30 WIR Franc (for electronic)
CHE 2 -    -          WIR Euro
CHF 2 -    -          Swiss Franc
CHW 2 -    -          WIR Franc
CLF 4 -    -          Unidad de Fomento
CLP 0 1975 -          Chilean Peso
CNY 2 -    -          Yuan Renminbi
COP 2 -    -          Colombian Peso
COU 2 -    -          Unidad de Valor Real
CRC 2 -    -          Costa Rican Colon
CSD 2 2002 2006-10-31 Serbian Dinar
CSJ 2 -    1990-12-31 Krona A/53
CSK 2 -    1993-03-31 Koruna
CUC 2 1994 2021-06-30 Peso Convertible
CUP 2 -    -          Cuban Peso
CVE 2 -    -          Cabo Verde Escudo
CYP 2 -    2008-01-31 Cyprus Pound
CZK 2 1993 -          Czech Koruna
DDM 2 -    1990-10-02 Mark der DDR
DEM 2 -    2002-05-15 Deutsche Mark
DJF 0 1977 -          Djibouti Franc
DKK 2 -    -          Danish Krone
DOP 2 -    -          Dominican Peso
DZD 2 -    -          Algerian Dinar
ECS 2 -    2000-10-02 Sucre
ECV 2 1993 2000-09-30 Unidad de Valor Constante (UVC)
EEK 2 1992 2011-01-31 Kroon
EGP 2 -    -          Egyptian Pound
ERN 2 1997 -          Nakfa
ESA 2 1978 1981-12-31 Spanish Peseta
ESB 2 1975 1994-12-31 A Account (convertible Peseta Account)
ESP 0 -    2002-03-31 Spanish Peseta
ETB 2 1976 -          Ethiopian Birr
EUR 2 1999 -          Euro
FIM 2 -    2002-03-31 Markka
FJD 2 -    -          Fiji Dollar
FKP 2 -    -          Falkland Islands Pound
FRF 2 -    2002-03-31 French Franc
GBP 2 -    -          Pound Sterling
GEK 2 1993 1995-10-31 Georgian Coupon
GEL 2 1995 -          Lari
GHC 2 1979 2008-01-31 Cedi
GHP 2 -    2007-06-30 Ghana Cedi
GHS 2 2007 -          Ghana Cedi
GIP 2 -    -          Gibraltar Pound
GMD 2 1971 -          Dalasi
GNE 2 -    1989-12-31 Syli
GNF 0 1986 -          Guinean Franc
GNS 2 1972 1986-02-28 Syli
GQE 2 1975 1986-06-30 Ekwele
GRD 0 -    2002-03-31 Drachma
GTQ 2 -    -          Quetzal
GWE 2 -    1981-12-31 Guinea Escudo
GWP 2 1976 1997-05-31 Guinea-Bissau Peso
GYD 2 -    -          Guyana Dollar
HKD 2 -    -          Hong Kong Dollar
HNL 2 -    -          Lempira
HRD 2 1991 1995-01-31 Croatian Dinar
HRK 2 1994 2023-01-31 Croatian Kuna
HTG 2 -    -          Gourde
HUF 2 -    -          Forint
IDR 2 -    -          Rupiah
IEP 2 -    2002-03-31 Irish Pound
ILP 2 -    1981-12-31 Pound
ILR 2 1980 1990-12-31 Old Shekel
ILS 2 1985 -          New Israeli Sheqel
INR 2 -    -          Indian Rupee
IQD 3 -    -          Iraqi Dinar
IRR 2 -    -          Iranian Rial
ISJ 2 -    1990-12-31 Old Krona
ISK 0 1981 -          Iceland Krona
ITL 0 -    2002-03-31 Italian Lira
JMD 2 -    -          Jamaican Dollar
JOD 3 -    -          Jordanian Dinar
JPY 0 -    -          Yen
KES 2 -    -          Kenyan Shilling
KGS 2 1993 -          Som
KHR 2 1980 -          Riel
KMF 0 1975 -          Comorian Franc
KPW 2 -    -          North Korean Won
KRW 0 -    -          Won
KWD 3 -    -          Kuwaiti Dinar
KYD 2 1971 -          Cayman Islands Dollar
KZT 2 1993 -          Tenge
LAJ 2 -    1979-12-31 Pathet Lao Kip
LAK 2 1979 -          Lao Kip
LBP 2 -    -          Lebanese Pound
LKR 2 1978 -          Sri Lanka Rupee
LRD 2 -    -          Liberian Dollar
LSL 2 1980 -          Loti
LSM 2 -    1985-05-31 Loti
LTL 2 1993 2014-12-31 Lithuanian Litas
LTT 2 1992 1993-07-31 Talonas
LUC 2 1970 1990-03-31 Luxembourg Convertible Franc
LUF 0 -    2002-03-31 Luxembourg Franc
LUL 2 1970 1990-03-31 Luxembourg Financial Franc
LVL 2 1993 2014-01-31 Latvian Lats
LVR 2 1992 1994-12-31 Latvian Ruble
LYD 3 1971 -          Libyan Dinar
MAD 2 -    -          Moroccan Dirham
MDL 2 1993 -          Moldovan Leu
MGA 2 1983 -          Malagasy Ariary
MGF 0 -    2004-12-31 Malagasy Franc
MKD 2 1993 -          Denar
MLF 2 -    1984-11-30 Mali Franc
MMK 2 1989 -          Kyat
MNT 2 -    -          Tugrik
MOP 2 -    -          Pataca
MRO 2 1973 2018-06-30 Ouguiya
MRU 2 2018 -          Ouguiya
MTL 2 -    2008-01-31 Maltese Lira
MTP 2 -    1983-06-30 Maltese Pound
MUR 2 -    -          Mauritius Rupee
MVQ 2 -    1989-12-31 Maldive Rupee
MVR 2 1981 -          Rufiyaa
MWK 2 1971 -          Malawi Kwacha
MXN 2 1993 -          Mexican Peso
MXP 2 -    1993-01-31 Mexican Peso
MXV 2 -    -          Mexican Unidad de Inversion (UDI)
MYR 2 -    -          Malaysian Ringgit
MZE 2 1975 1981-12-31 Mozambique Escudo
MZM 2 1980 2006-12-31 Mozambique Metical
MZN 2 2006 -          Mozambique Metical
NAD 2 1993 -          Namibia Dollar
NGN 2 1973 -          Naira
NIC 2 1988 1991-04-30 Cordoba
NIO 2 1991 -          Cordoba Oro
NLG 2 -    2002-03-31 Netherlands Guilder
NOK 2 -    -          Norwegian Krone
NPR 2 -    -          Nepalese Rupee
NZD 2 -    -          New Zealand Dollar
OMR 3 1972 -          Rial Omani
PAB 2 -    -          Balboa
PEH 2 -    1990-12-31 Sol
PEI 2 1985 1991-07-31 Inti
PEN 2 1991 -          Sol
PES 2 -    1986-02-28 Sol
PGK 2 1975 -          Kina
PHP 2 -    -          Philippine Peso
PKR 2 -    -          Pakistan Rupee
PLN 2 1995 -          Zloty
PLZ 2 -    1997-01-31 Zloty
PTE 0 -    2002-03-31 Portuguese Escudo
PYG 0 -    -          Guarani
QAR 2 1973 -          Qatari Rial
RHD 2 1970 1981-12-31 Rhodesian Dollar
ROK 2 -    1990-12-31 Leu A/52
ROL 2 -    2006-12-31 Old Leu
RON 2 2005 -          Romanian Leu
RSD 2 2006 -          Serbian Dinar
RUB 2 1999 -          Russian Ruble
RUR 2 1991 2004-01-31 Russian Ruble
RWF 0 -    -          Rwanda Franc
SAR 2 -    -          Saudi Riyal
SBD 2 1977 -          Solomon Islands Dollar
SCR 2 -    -          Seychelles Rupee
SDD 2 1992 2007-07-31 Sudanese Dinar
SDG 2 2007 -          Sudanese Pound
SDP 2 -    1998-06-30 Sudanese Pound
SEK 2 -    -          Swedish Krona
SGD 2 -    -          Singapore Dollar
SHP 2 -    -          Saint Helena Pound
SIT 2 1992 2007-01-31 Tolar
SKK 2 1992 2009-01-31 Slovak Koruna
SLE 2 2022 -          Leone
SLL 2 -    2023-12-31 Leone
SOS 2 -    -          Somali Shilling
SRD 2 2004 -          Surinam Dollar
SRG 2 -    2003-12-31 Surinam Guilder
SSP 2 2011 -          South Sudanese Pound
STD 2 1977 2017-12-31 Dobra
STN 2 2018 -          Dobra
SUR 2 -    1992-10-01 Rouble
SVC 2 -    -          El Salvador Colon
SYP 2 -    -          Syrian Pound
SZL 2 1974 -          Lilangeni
THB 2 -    -          Baht
TJR 2 1995 2001-04-30 Tajik Ruble
TJS 2 2000 -          Somoni
TMM 2 1993 2009-01-31 Turkmenistan Manat
TMT 2 2009 -          Turkmenistan New Manat
TND 3 -    -          Tunisian Dinar
TOP 2 -    -          Pa'anga
TPE 0 -    2002-11-30 Timor Escudo
TRL 0 -    2005-12-31 Old Turkish Lira
TRY 2 2005 -          Turkish Lira
TTD 2 -    -          Trinidad and Tobago Dollar
TWD 2 -    -          New Taiwan Dollar
TZS 2 -    -          Tanzanian Shilling
UAH 2 1996 -          Hryvnia
UAK 2 1992 1996-09-30 Karbovanet
UGS 2 -    1987-05-31 Uganda Shilling
UGW 2 -    1990-12-31 Old Shilling
UGX 0 1987 -          Uganda Shilling
USD 2 -    -          US Dollar
USN 2 -    -          US Dollar (Next day)
USS 2 -    2014-03-31 US Dollar (Same day)
UYI 0 -    -          Uruguay Peso en Unidades Indexadas (UI)
UYN 2 -    1989-12-31 Old Uruguay Peso
UYP 2 1975 1993-03-31 Uruguayan Peso
UYU 2 1993 -          Peso Uruguayo
UYW 4 -    -          Unidad Previsional
UZS 2 1994 -          Uzbekistan Sum
VEB 2 -    2008-06-30 Bolivar
VED 2 2021 -          Bolívar Soberano
VEF 2 2008 2018-08-31 Bolivar Fuerte
VES 2 2018 -          Bolívar Soberano
VNC 2 -    1990-12-31 Old Dong
VND 0 1985 -          Dong
VUV 0 1981 -          Vatu
WST 2 -    -          Tala
XAD 2 2025 -          Arab Accounting Dinar
XAF 0 1973 -          CFA Franc BEAC
XCD 2 -    -          East Caribbean Dollar
XCG 2 2025 -          Caribbean Guilder
XEU 2 1979 1999-01-31 European Currency Unit (E.C.U)
XOF 0 -    -          CFA Franc BCEAO
XPF 0 -    -          CFP Franc
YDD 2 -    1996-01-01 Yemeni Dinar
YER 2 1990 -          Yemeni Rial
YUD 2 -    1990-01-31 New Yugoslavian Dinar
YUM 2 1994 2003-07-31 New Dinar
YUN 2 1990 1995-11-30 Yugoslavian Dinar
ZAL 2 1985 1995-03-31 Financial Rand
ZAR 2 -    -          Rand
ZMK 2 -    2013-01-01 Zambian Kwacha
ZMW 2 2013 -          Zambian Kwacha
ZRN 2 1993 1999-06-30 New Zaire
ZRZ 2 1971 1994-02-28 Zaire
ZWC 2 -    1989-12-31 Rhodesian Dollar
ZWD 2 1980 2008-08-31 Zimbabwe Dollar (old)
ZWG 2 2024 -          Zimbabwe Gold
ZWL 2 2009 2024-09-30 Zimbabwe Dollar
ZWN 2 -    2006-09-30 Zimbabwe Dollar (new)
ZWR 2 2008 2009-06-30 Zimbabwe Dollar
"""
