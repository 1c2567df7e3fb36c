// What @asyncapi/parser and Ajv say of an AsyncAPI document and of samples: [schema, value] each.
import { Parser } from "@asyncapi/parser";
import { Ajv } from "ajv";
import { Ajv2020 } from "ajv/dist/2020.js";
import formats from "ajv-formats";
import { answer, given } from "./lines.mjs";

const { text, samples } = given();
const parsed = await new Parser().parse(text);
const errors = parsed.diagnostics.filter((one) => one.severity === 0).map((one) => `${one.path.join(".")}: ${one.message}`);
const document = JSON.parse(text);
const found = [Ajv, Ajv2020].map((Dialect) => {
  const ajv = new Dialect({ strict: true, allowUnionTypes: true, allErrors: true });
  formats.default(ajv);
  ajv.addVocabulary(Object.keys(document));
  ajv.addSchema(document, "document");
  const compiled = (name) => ajv.compile({ $ref: `document#/components/schemas/${encodeURIComponent(name)}` });
  const broken = {};
  for (const name of Object.keys(document.components.schemas)) {
    try {
      compiled(name);
    } catch (error) {
      broken[name] = error.message;
    }
  }
  const verdicts = samples.map(([name, value]) => {
    const validate = compiled(name);
    return validate(value) ? null : ajv.errorsText(validate.errors);
  });
  return { broken, verdicts };
});
answer({ errors, parsed: parsed.document !== undefined, schemas: Object.keys(document.components.schemas).length, found });
