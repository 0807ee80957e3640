package rest

// Limits are what an account may have and do.
type Limits struct {
	// Resource is how many objects of a kind there may be: "service",
	// "configuration_value".
	Resource map[string]int `json:"resource"`
	// Rate is how often paths that match a pattern may be asked.
	Rate map[string]RateLimit `json:"rate"`
}

// RateLimit is how many requests are allowed in a time.
type RateLimit struct {
	Limit int `json:"limit"`
	Used  int `json:"used"`
	// Window is the time as text, such as "24.0 hours".
	Window string `json:"window"`
}
