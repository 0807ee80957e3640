package rest

// ConfigurationValue is one value of an account's configuration.
type ConfigurationValue struct {
	// ID is a plain name, such as "port", or a namespaced one that begins with a slash,
	// such as "/production/cassandra/port".
	ID string `json:"id"`
	// Value has 1 to 1024 characters.
	Value string `json:"value"`
}
