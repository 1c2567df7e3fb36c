// The verdict of ECMA 262 on texts: the published patterns with and without the flag `u`, and the whole rule,
// written anew with the Unicode properties that the language knows.
import { answer, given } from "./lines.mjs";

const EMOJI = /\u{1F3F4}[\u{E0020}-\u{E007E}]+\u{E007F}|\p{ExtPict}[\uFE0F\p{EMod}]?(?:\u200D\p{ExtPict}[\uFE0F\p{EMod}]?)*|[0-9#*]\uFE0F?\u20E3/gu;
const ADDRESS = /^[^@ ]+@[^@ ]+\.[^@ ]+$/u;

function isContact(text) {
  if (ADDRESS.test(text)) return true;
  const digits = [...text].filter((c) => /[0-9]/u.test(c)).length;
  return text.startsWith("+") && /^\+[-0-9 .()\u2010-\u2015\u2212]*$/u.test(text) && digits >= 8 && digits <= 15;
}

function isId(text) {
  const length = [...text].length;
  return text.isWellFormed() && length >= 1 && length <= 128
    && !/[\p{Cc}\u2028\u2029]/u.test(text)
    && text.normalize("NFC") === text
    && !/^\p{White_Space}|\p{White_Space}$/u.test(text)
    && !/(?! )\p{White_Space}/u.test(text)
    && !/\p{Default_Ignorable_Code_Point}/u.test(text.replace(EMOJI, ""))
    && !isContact(text);
}

const { patterns, texts } = given();
const [unicode, plain] = ["u", ""].map((flags) => patterns.map((one) => new RegExp(one, flags)));
const matches = (all, text) => all.some((one) => one.test(text));
answer(texts.map((text) => [matches(unicode, text), matches(plain, text), isId(text)]));
