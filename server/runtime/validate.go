package runtime

import (
	"crypto/tls"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Problem is one thing wrong with a Config.
type Problem struct {
	// Key is the name of the setting.
	Key string
	// Message says what is wrong, with which value, and what to do.
	Message string
}

// ConfigError lists everything that is wrong with a Config.
type ConfigError struct {
	Problems []Problem
}

// Error implements error: one line a problem.
func (e *ConfigError) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		lines[i] = p.Key + ": " + p.Message
	}
	return strings.Join(lines, "\n")
}

func (e *ConfigError) add(key, format string, args ...any) {
	e.Problems = append(e.Problems, Problem{Key: key, Message: fmt.Sprintf(format, args...)})
}

var (
	zoneName    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	trustDomain = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,252}[a-z0-9])?$`)
)

// Validate returns nil, or a *ConfigError with every problem at once.
func (c Config) Validate() error {
	c = c.withDefaults()
	e := &ConfigError{}
	c.validateStore(e)
	c.validateAddresses(e)
	c.validateTLS(e)
	c.validateNames(e)
	if len(e.Problems) == 0 {
		return nil
	}
	return e
}

func (c Config) validateStore(e *ConfigError) {
	if strings.Contains(c.Database, "://") && !c.Postgres() {
		scheme, _, _ := strings.Cut(c.Database, "://")
		if scheme == "sqlite" || scheme == "file" {
			return
		}
		e.add("database", "scheme %q is unknown; use postgres://USER@HOST/DB, or a path for SQLite", scheme)
	}
	if c.Postgres() && c.ClusterSecret == "" {
		e.add("database", "PostgreSQL needs TELFORD_CLUSTER_SECRET in the environment: it wraps the keys of the cluster, which the database must not hold readable")
	}
	if c.ClusterSecret != "" && len(c.ClusterSecret) < 16 {
		e.add("TELFORD_CLUSTER_SECRET", "%d characters are too few; use at least 16 random ones, such as the output of `openssl rand -base64 32`", len(c.ClusterSecret))
	}
}

func (c Config) validateAddresses(e *ConfigError) {
	c.validateAddress(e, "grpc", c.GRPC)
	c.validateAddress(e, "http", c.HTTP)
	for _, d := range []struct{ key, value string }{{"ipc", c.IPC}, {"bus", c.Bus}, {"bus-insecure", c.BusInsecure}} {
		if d.value != Off {
			e.add(d.key, "%q names a door that this build does not have; leave it out or say off", d.value)
		}
	}
	if c.REST != "on" && c.REST != Off {
		e.add("rest", "%q is neither on nor off", c.REST)
	}
	if c.GRPC == Off && c.HTTP == Off {
		e.add("grpc", "every door is off; open at least one of grpc and http")
	}
}

func (c Config) validateAddress(e *ConfigError, key, value string) {
	if value == Off {
		return
	}
	host, port, err := net.SplitHostPort(value)
	if err != nil {
		e.add(key, "%q is not an address; write HOST:PORT, :PORT or off", value)
		return
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		e.add(key, "port %q of %q is not a number from 0 to 65535", port, value)
	}
	if c.Dev && !loopback(host) {
		e.add(key, "%q is not a loopback address; --dev serves 127.0.0.1, ::1 and localhost only", value)
	}
}

func (c Config) validateTLS(e *ConfigError) {
	if (c.HTTPCert == "") != (c.HTTPKey == "") {
		e.add("http-cert", "http-cert and http-key go together; only one is given")
	} else if c.HTTPCert != "" {
		if _, err := tls.LoadX509KeyPair(c.HTTPCert, c.HTTPKey); err != nil {
			e.add("http-cert", "%v", err)
		}
	}
	switch c.HTTPPlain {
	case Off, "false":
	case "proxy":
	case "on", "true":
		host, _, err := net.SplitHostPort(c.HTTP)
		if err == nil && !loopback(host) && !c.Dev {
			e.add("http-plain", "%q is not a loopback address: HTTP there needs TLS; use a loopback address, or http-plain=proxy when a proxy in front does TLS", c.HTTP)
		}
	default:
		e.add("http-plain", "%q is none of on, proxy, off", c.HTTPPlain)
	}
	if c.plainHTTP() && c.HTTPCert != "" {
		e.add("http-plain", "plain HTTP and http-cert exclude each other; give one")
	}
}

func (c Config) validateNames(e *ConfigError) {
	if !zoneName.MatchString(c.Zone) {
		e.add("zone", "%q is not a zone name: lower-case letters, digits and -, at most 63, the first no -", c.Zone)
	}
	if c.TrustDomain != "" && !trustDomain.MatchString(c.TrustDomain) {
		e.add("trust-domain", "%q is not a trust domain: lower-case letters, digits, dots, - and _, such as prod.example.org", c.TrustDomain)
	}
	for _, host := range c.advertised() {
		if strings.ContainsAny(host, " /:@") && net.ParseIP(host) == nil {
			e.add("advertise", "%q is neither a host name nor an IP address; leave port and scheme out", host)
		}
	}
	if c.LeafLife < 2*time.Second || c.LeafLife > 30*24*time.Hour {
		e.add("leaf-life", "%s is outside 2s to 720h", c.LeafLife)
	}
	if c.IdempotencyLifetime < minIdempotencyLifetime || c.IdempotencyLifetime > maxIdempotencyLifetime {
		e.add("idempotency-lifetime", "%s is outside %s to %s", c.IdempotencyLifetime, minIdempotencyLifetime, maxIdempotencyLifetime)
	}
	if c.IssuerLife < c.LeafLife {
		e.add("issuer-life", "%s is less than the %s of leaf-life: an issuer signs nothing that outlives it", c.IssuerLife, c.LeafLife)
	}
	if c.RootLife < c.IssuerLife {
		e.add("root-life", "%s is less than the %s of issuer-life: a root signs nothing that outlives it", c.RootLife, c.IssuerLife)
	}
	if c.DrainTimeout < 0 {
		e.add("drain-timeout", "%s is negative", c.DrainTimeout)
	}
	if _, err := parseLevel(c.LogLevel); err != nil {
		e.add("log-level", "%v", err)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		e.add("log-format", "%q is neither text nor json", c.LogFormat)
	}
}

// plainHTTP reports whether the HTTP door goes without TLS.
func (c Config) plainHTTP() bool {
	switch c.HTTPPlain {
	case "on", "true", "proxy":
		return true
	}
	return false
}

func (c Config) advertised() []string {
	var hosts []string
	for host := range strings.SplitSeq(c.Advertise, ",") {
		if host = strings.TrimSpace(host); host != "" {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
