package runtime

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Setting is one field of Config as it appears outside: a flag, an environment
// variable and a key of the configuration file.
type Setting struct {
	// Name is the name of the flag and the key in the file.
	Name string
	// Usage is one line for people.
	Usage string
	// Bool says that the flag needs no value.
	Bool bool
	// Bare is the value of the flag when it stands alone; empty: it needs one.
	Bare string

	get func(*Config) string
	set func(*Config, string) error
}

// Env is the name of the environment variable.
func (s Setting) Env() string {
	if s.Name == "data" {
		return "TELFORD_DATA"
	}
	return "TELFORD_SERVE_" + strings.ToUpper(strings.ReplaceAll(s.Name, "-", "_"))
}

// Set reads value into the field of c.
func (s Setting) Set(c *Config, value string) error { return s.set(c, value) }

// Get returns the field of c as text that Set reads.
func (s Setting) Get(c *Config) string { return s.get(c) }

// shown is Get without secrets.
func (s Setting) shown(c *Config) string {
	v := s.get(c)
	if s.Name != "database" {
		return v
	}
	return redactURL(v)
}

// redactURL takes the password out of a database URL.
func redactURL(v string) string {
	if !strings.Contains(v, "://") {
		return v
	}
	u, err := url.Parse(v)
	if err != nil {
		return "(unreadable URL)"
	}
	if q := u.Query(); q.Has("password") {
		q.Set("password", "xxxxx")
		u.RawQuery = q.Encode()
	}
	return u.Redacted()
}

// Settings returns every setting, in the order of the documentation.
func Settings() []Setting {
	return []Setting{
		boolean("dev", "run for one developer's machine: loopback only, plain HTTP, a key that may be any service", func(c *Config) *bool { return &c.Dev }),
		text("data", `directory of the node (default ".telford")`, func(c *Config) *string { return &c.Data }),
		text("database", "store: empty or a path for SQLite, postgres://… for PostgreSQL", func(c *Config) *string { return &c.Database }),
		text("grpc", `address of links and gRPC (default ":14445", with --dev on 127.0.0.1)`, func(c *Config) *string { return &c.GRPC }),
		text("http", `address of HTTP (default ":14444", with --dev on 127.0.0.1)`, func(c *Config) *string { return &c.HTTP }),
		text("http-cert", "certificate of the HTTP door, a PEM file (default: one of the private CA)", func(c *Config) *string { return &c.HTTPCert }),
		text("http-key", "key of --http-cert, a PEM file", func(c *Config) *string { return &c.HTTPKey }),
		bare(text("http-plain", "HTTP without TLS: on (loopback only), proxy (a proxy in front does TLS), off", func(c *Config) *string { return &c.HTTPPlain }), "on"),
		text("rest", `the REST registry on the HTTP address: on or off (default "on")`, func(c *Config) *string { return &c.REST }),
		text("ipc", "path of the unix socket door, which this build does not have (default off)", func(c *Config) *string { return &c.IPC }),
		text("bus", "address of the bus door, which this build does not have (default off)", func(c *Config) *string { return &c.Bus }),
		text("bus-insecure", "address of the plain bus door, which this build does not have (default off)", func(c *Config) *string { return &c.BusInsecure }),
		text("zone", `name of this cluster among those joined with it (default "local")`, func(c *Config) *string { return &c.Zone }),
		text("locality", "where this node runs; instances of the same one are preferred", func(c *Config) *string { return &c.Locality }),
		text("trust-domain", "name of the cluster in certificates (default: random, made at first start)", func(c *Config) *string { return &c.TrustDomain }),
		text("advertise", "further host names and addresses of this node for its certificate, by commas", func(c *Config) *string { return &c.Advertise }),
		span("leaf-life", "life of issued certificates (default 24h)", func(c *Config) *time.Duration { return &c.LeafLife }),
		span("issuer-life", "life of the intermediate certificate that signs them, from its next renewal on (default 8760h)", func(c *Config) *time.Duration { return &c.IssuerLife }),
		span("root-life", "life of a root, from the next one on; it is replaced at two thirds (default 87600h)", func(c *Config) *time.Duration { return &c.RootLife }),
		span("drain-timeout", "how long a stop waits for running calls (default 30s)", func(c *Config) *time.Duration { return &c.DrainTimeout }),
		span("idempotency-lifetime", "how long the answers to calls with an idempotency key are kept (default 24h)", func(c *Config) *time.Duration { return &c.IdempotencyLifetime }),
		text("log-level", `debug, info, warn or error (default "info")`, func(c *Config) *string { return &c.LogLevel }),
		text("log-format", `text or json (default "text")`, func(c *Config) *string { return &c.LogFormat }),
	}
}

func text(name, usage string, field func(*Config) *string) Setting {
	return Setting{
		Name: name, Usage: usage,
		get: func(c *Config) string { return *field(c) },
		set: func(c *Config, v string) error { *field(c) = v; return nil },
	}
}

func bare(s Setting, value string) Setting {
	s.Bare = value
	return s
}

func boolean(name, usage string, field func(*Config) *bool) Setting {
	return Setting{
		Name: name, Usage: usage, Bool: true,
		get: func(c *Config) string { return strconv.FormatBool(*field(c)) },
		set: func(c *Config, v string) error {
			b, err := strconv.ParseBool(v)
			if err != nil {
				return fmt.Errorf("%q is neither true nor false", v)
			}
			*field(c) = b
			return nil
		},
	}
}

func span(name, usage string, field func(*Config) *time.Duration) Setting {
	return Setting{
		Name: name, Usage: usage,
		get: func(c *Config) string { return field(c).String() },
		set: func(c *Config, v string) error {
			d, err := time.ParseDuration(v)
			if err != nil {
				return fmt.Errorf("%q is not a duration such as 30s or 24h", v)
			}
			*field(c) = d
			return nil
		},
	}
}
