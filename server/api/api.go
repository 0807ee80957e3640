// Package api owns the definition of the administration of Telford, telford.admin.v1:
// the .proto files, the file that maps them to HTTP, and what is generated from both.
// The code is in the packages below; here is the OpenAPI document. It implements
// nothing and starts no goroutines.
package api

import _ "embed"

//go:embed openapi.swagger.json
var openAPI []byte

// OpenAPI returns the OpenAPI 2.0 document of the JSON API. The bytes are a copy.
func OpenAPI() []byte { return append([]byte(nil), openAPI...) }
