//go:build linux

// Package schema has the JSON schema of the state document that the runtime specification publishes.
package schema

import (
	"bytes"
	"embed"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gotest.tools/v3/assert"
)

// The runtime specification's own schema of the state document.
//
//go:embed *.json
var schemas embed.FS

// State compiles the specification's schema of the state document.
func State(tb testing.TB) *jsonschema.Schema {
	tb.Helper()
	compiler := jsonschema.NewCompiler()
	for _, name := range []string{"state-schema.json", "defs.json"} {
		data, err := schemas.ReadFile(name)
		assert.NilError(tb, err)
		document, err := jsonschema.UnmarshalJSON(bytes.NewReader(data))
		assert.NilError(tb, err)
		assert.NilError(tb, compiler.AddResource("file:///"+name, document))
	}
	schema, err := compiler.Compile("file:///state-schema.json")
	assert.NilError(tb, err)
	return schema
}

// Validate returns what in a document violates the schema, or nil.
func Validate(tb testing.TB, schema *jsonschema.Schema, document string) error {
	tb.Helper()
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(document)))
	assert.NilError(tb, err, "no JSON: %s", document)
	return schema.Validate(v)
}
