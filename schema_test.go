//go:build linux && vmlab

package cdblab

import (
	"bytes"
	"embed"
	"path"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gotest.tools/v3/assert"

	"cdblab/helpers/lab"
)

// The runtime specification's own schema of the state document.
//
//go:embed testdata/schema
var schemas embed.FS

// stateSchema compiles the specification's schema of the state document.
func stateSchema(q *lab.Q) *jsonschema.Schema {
	q.Helper()
	compiler := jsonschema.NewCompiler()
	for _, name := range []string{"state-schema.json", "defs.json"} {
		data, err := schemas.ReadFile(path.Join("testdata/schema", name))
		assert.NilError(q, err)
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		assert.NilError(q, err)
		assert.NilError(q, compiler.AddResource("file:///"+name, document))
	}
	schema, err := compiler.Compile("file:///state-schema.json")
	assert.NilError(q, err)
	return schema
}

// validate says what the schema has against a document; nil for nothing.
func validate(q *lab.Q, schema *jsonschema.Schema, document string) error {
	q.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(document)))
	assert.NilError(q, err, "no JSON: %s", document)
	return schema.Validate(v)
}
