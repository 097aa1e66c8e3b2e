//go:build linux

// Package schema validates state documents with the JSON schema that the runtime specification publishes.
package schema

import (
	"bytes"
	"embed"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gotest.tools/v3/assert"
)

// schemas are the runtime specification's own files. A test compares them with the pinned version of the specification.
//
//go:embed *.json
var schemas embed.FS

// State returns the specification's schema of the state document.
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

// Validate returns an error that says where a document violates the schema, or nil.
func Validate(tb testing.TB, schema *jsonschema.Schema, document string) error {
	tb.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(document)))
	assert.NilError(tb, err, "expected JSON: %s", document)
	return schema.Validate(value)
}
