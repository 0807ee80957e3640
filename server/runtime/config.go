package runtime

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/server/internal/identity"
)

// Off is the address of a door that is closed.
const Off = "off"

// Config says what a Runtime is made of. The zero value of a field means its default;
// what can be closed is closed by Off. The fields up to LogFormat are settings: each
// has a name on the command line, listed by Settings.
type Config struct {
	// Data is the directory of everything the node keeps: the store on SQLite, the
	// keys of the CA, the operator's token. Default ".telford".
	Data string
	// Database is where the store is: empty for SQLite in Data, a path for SQLite
	// elsewhere, a postgres:// URL for PostgreSQL.
	Database string
	// GRPC is the address of the door for links and gRPC. Default ":14445", with Dev
	// "127.0.0.1:14445"; port 0 takes a free one.
	GRPC string
	// HTTP is the address of the HTTP door. Default ":14444", with Dev
	// "127.0.0.1:14444"; port 0 takes a free one.
	HTTP string
	// HTTPCert and HTTPKey are PEM files with the certificate of the HTTP door; both
	// or neither. Default: a certificate of the private CA.
	HTTPCert string
	HTTPKey  string
	// HTTPPlain serves HTTP without TLS: "off" (the default outside Dev), "on" (loopback
	// addresses only) or "proxy" (any address: a proxy in front does TLS).
	HTTPPlain string
	// REST is Off when the HTTP door does not serve the REST registry. Default "on".
	REST string
	// IPC, Bus and BusInsecure are the addresses of doors that this build does not have;
	// anything but empty and Off is refused.
	IPC         string
	Bus         string
	BusInsecure string
	// Zone names this cluster among those joined with it. Default "local".
	Zone string
	// Locality says where this node runs; callers prefer instances of the same one.
	Locality string
	// TrustDomain names the cluster in certificates. Default: a random one, made at
	// first start; it cannot be changed later.
	TrustDomain string
	// Advertise lists, separated by commas, the host names and addresses by which
	// others reach this node, beside those it finds itself; they enter its certificate.
	Advertise string
	// LeafLife is how long the certificates live that are issued to services, and the
	// runtime's own. Default 24 h.
	LeafLife time.Duration
	// IssuerLife is how long the intermediate certificate lives that signs those, from its
	// next renewal on. Default one year.
	IssuerLife time.Duration
	// RootLife is how long a root lives, from the next one on. It is replaced by itself
	// when two thirds are over. Default ten years.
	RootLife time.Duration
	// DrainTimeout bounds how long Stop waits for running calls. Default 30 s.
	DrainTimeout time.Duration
	// Dev makes a runtime for one developer's machine: loopback only, plain HTTP, one
	// key in Data/dev.key that may be any service.
	Dev bool
	// IdempotencyLifetime is how long the answers to calls with an idempotency key are
	// kept, at least 1s; default 24h.
	IdempotencyLifetime time.Duration
	// LogLevel is "debug", "info", "warn" or "error"; default "info".
	LogLevel string
	// LogFormat is "text" or "json"; default "text".
	LogFormat string

	// ClusterSecret wraps the keys of the cluster at rest. Required with PostgreSQL; on
	// SQLite a file in Data takes its place when it is empty.
	ClusterSecret string
	// Clock is the time of every part, for tests. Nil: that of the machine, which for
	// what is stored and for certificates is corrected by the clock of the database
	// server on PostgreSQL.
	Clock clock.Clock
	// CertificateClock is the time that certificates are made and judged by, for tests of
	// their rotation. Nil: that of the other parts.
	CertificateClock clock.Clock
	// Vault keeps the keys of the cluster, for tests. Nil: files below Data, on
	// PostgreSQL the database, where they are wrapped with ClusterSecret.
	Vault identity.Vault
	// Fast is for tests only: SQLite does not sync, so that a crash of the machine, not
	// of the process, may lose data.
	Fast bool
	// Log receives what the node has to say. Default: to nowhere.
	Log *slog.Logger
}

// withDefaults returns a copy whose empty fields are filled in.
func (c Config) withDefaults() Config {
	host := ""
	if c.Dev {
		host = "127.0.0.1"
	}
	fill := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	fill(&c.Data, ".telford")
	fill(&c.GRPC, host+":14445")
	fill(&c.HTTP, host+":14444")
	if c.Dev && c.HTTPCert == "" && c.HTTPKey == "" {
		fill(&c.HTTPPlain, "on")
	}
	fill(&c.HTTPPlain, Off)
	fill(&c.REST, "on")
	fill(&c.IPC, Off)
	fill(&c.Bus, Off)
	fill(&c.BusInsecure, Off)
	fill(&c.Zone, "local")
	fill(&c.LogLevel, "info")
	fill(&c.LogFormat, "text")
	if c.LeafLife == 0 {
		c.LeafLife = 24 * time.Hour
	}
	if c.IdempotencyLifetime == 0 {
		c.IdempotencyLifetime = 24 * time.Hour
	}
	if c.IssuerLife == 0 {
		c.IssuerLife = 365 * 24 * time.Hour
	}
	if c.RootLife == 0 {
		c.RootLife = 10 * 365 * 24 * time.Hour
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 30 * time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return c
}

// Postgres reports whether the store is on PostgreSQL.
func (c Config) Postgres() bool {
	return strings.HasPrefix(c.Database, "postgres://") || strings.HasPrefix(c.Database, "postgresql://")
}

// String returns the settings in force, defaults included, as YAML that --config
// reads. A password in Database is left out.
func (c Config) String() string {
	c = c.withDefaults()
	var b strings.Builder
	for _, s := range Settings() {
		fmt.Fprintf(&b, "%s: %q\n", s.Name, s.shown(&c))
	}
	return b.String()
}

// Effective returns the settings in force by their names. A password in Database is
// left out.
func (c Config) Effective() map[string]string {
	c = c.withDefaults()
	m := make(map[string]string)
	for _, s := range Settings() {
		m[s.Name] = s.shown(&c)
	}
	return m
}
