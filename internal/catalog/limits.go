package catalog

import "time"

// The bounds of a declaration. Sizes are bytes, counts are entries.
const (
	MaxName         = 128     // names of services, realms, instances, tags, ...
	MaxMethods      = 4096    // methods of one instance
	MaxMethodName   = 256     // one method name
	MaxMessageName  = 512     // the full name of a protobuf message
	MaxDescription  = 4096    // the description of one method
	MaxCallers      = 1024    // allowed callers of one method
	MaxSchemas      = 1 << 20 // all JSON Schemas together
	MaxDescriptors  = 1 << 20
	MaxMetadata     = 64 << 10 // keys and values together
	MaxEndpoints    = 32
	MaxVersions     = 64 // compatible versions
	MaxTags         = 64
	MaxCapabilities = 64
	MaxMenu         = 64
	MaxDependencies = 1024
	MaxNames        = 4096 // names of all dependencies together
	MaxText         = 1024 // a status message, a menu label, a path
	MaxWeight       = 1000

	DefaultTTL = 90 * time.Second
	MinTTL     = time.Second
	MaxTTL     = 24 * time.Hour
	// DefaultRealm is the realm of an instance that names none.
	DefaultRealm = "global"
)
