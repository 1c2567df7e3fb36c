// What every script does: JSON in, JSON out.
import { readFileSync } from "node:fs";

export const given = () => JSON.parse(readFileSync(0, "utf8"));
export const answer = (value) => process.stdout.write(JSON.stringify(value));
