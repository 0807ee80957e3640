package catalog

import (
	"slices"
	"strings"
)

func (c *checker) endpoints() {
	d := c.d
	c.count("endpoints", len(d.Endpoints), MaxEndpoints)
	seen := make(map[Endpoint]bool, len(d.Endpoints))
	d.Endpoints = slices.DeleteFunc(d.Endpoints, func(e Endpoint) bool {
		if seen[e] {
			c.warn("endpoints", e.Host, "given twice; counts once")
			return true
		}
		seen[e] = true
		if e.Kind != "link" && e.Kind != "http" {
			c.problem("endpoint %s: kind %s must be \"link\" or \"http\"", quote(e.Host), quote(e.Kind))
		}
		if e.Port < 1 || e.Port > 65535 {
			c.problem("endpoint %s: port %d must be 1 to 65535", quote(e.Host), e.Port)
		}
		switch kindOfHost(e.Host) {
		case wildcardHost:
			c.problem("endpoint %s is a wildcard address, which nobody can dial; advertise the address that callers reach", quote(e.Host))
		case loopbackHost:
			c.warn("endpoints", e.Host, "a loopback address: only callers on the same host can dial it; advertise another for the rest")
		case badHost:
			c.problem("endpoint %s is not an address or a host name", quote(e.Host))
		}
		return false
	})
}

func (c *checker) dependencies() {
	d := c.d
	c.count("dependencies", len(d.Dependencies), MaxDependencies)
	names := 0
	for i := range d.Dependencies {
		p := &d.Dependencies[i]
		names += len(p.Names)
		switch p.Kind {
		case "rpc", "workflow":
			if !ValidName(p.Target) {
				c.problem("dependency on %s: the service must be 1 to %d of a-z, 0-9, '.', '_', '-'", quote(p.Target), MaxName)
			}
		case "event":
			if !validTopic(p.Target) {
				c.problem("dependency on %s: the topic must be words of a-z, 0-9, '_', '-', joined by '.'", quote(p.Target))
			}
		default:
			c.problem("dependency on %s: kind %s must be \"rpc\", \"workflow\" or \"event\"", quote(p.Target), quote(p.Kind))
		}
		p.Names = c.unique("dependencies", p.Names, func(s string) {
			if !ValidMethod(s) {
				c.problem("dependency on %s: %s is not the name of a method or a workflow", quote(p.Target), quote(s))
			}
		})
	}
	if names > MaxNames {
		c.problem("%d names of dependencies in all are over the limit of %d", names, MaxNames)
	}
}

// validTopic reports whether s is the name of an event; publishers may not use
// wildcards.
func validTopic(s string) bool {
	if len(s) > MaxMethodName {
		return false
	}
	for word := range strings.SplitSeq(s, ".") {
		if !shaped(word, MaxMethodName, func(c byte) bool { return lower(c) || digit(c) || c == '_' || c == '-' }) {
			return false
		}
	}
	return true
}
