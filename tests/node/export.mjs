// A function that a program exports. Given: the program's address, the function's name, and its arguments.
import { answer, given } from "./lines.mjs";

const { program, name, words } = given();
const { [name]: called } = await import(program);
answer(await called(...words));
