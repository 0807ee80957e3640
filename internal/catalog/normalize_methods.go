package catalog

import (
	"encoding/json"
	"slices"
	"strings"
)

func (c *checker) methods() {
	d := c.d
	c.count("methods", len(d.Methods), MaxMethods)
	seen := make(map[string]bool, len(d.Methods))
	schemas, needs := 0, ""
	for i := range d.Methods {
		m := &d.Methods[i]
		if !ValidMethod(m.Name) {
			c.problem("method %s must be 1 to %d letters, digits, '.', '_', '-', ':', in segments joined by '/'",
				quote(m.Name), MaxMethodName)
		}
		if seen[m.Name] {
			c.problem("method %s is declared twice", quote(m.Name))
		}
		seen[m.Name] = true
		if m.Kind == "" {
			m.Kind = Unary
		}
		if m.Kind != Unary && m.Kind != ServerStream {
			c.problem("method %s: kind %s must be %q or %q", quote(m.Name), quote(string(m.Kind)), Unary, ServerStream)
		}
		if m.Contract != "" && !validContract(m.Contract) {
			c.problem("method %s: contract %s must be \"pb:\" or \"js:\" and a hash", quote(m.Name), quote(m.Contract))
		}
		m.ContentTypes = c.contentTypes(m)
		for _, name := range []string{m.InputMessage, m.OutputMessage} {
			if name != "" && !validMessage(name) {
				c.problem("method %s: %s is not the full name of a protobuf message", quote(m.Name), quote(name))
			}
		}
		for _, schema := range []string{m.InputSchema, m.OutputSchema} {
			if schemas += len(schema); schema != "" && schemas <= MaxSchemas && !json.Valid([]byte(schema)) {
				c.problem("method %s: schema %s is not JSON", quote(m.Name), quote(schema))
			}
		}
		c.text("description of method "+quote(m.Name), m.Description, MaxDescription)
		c.bounds(m)
		if needs == "" && m.InputMessage != "" {
			needs = m.Name
		}
	}
	if schemas > MaxSchemas {
		c.problem("schemas of %d bytes in all are over the limit of %d", schemas, MaxSchemas)
	}
	if needs != "" && len(d.Descriptors) == 0 {
		c.warn("descriptors", needs,
			"no descriptors were given: callers of protobuf methods that speak JSON are refused")
	}
}

// bounds checks who may call a method, how long it runs and how much of it.
func (c *checker) bounds(m *Method) {
	if len(m.AllowedCallers) > MaxCallers {
		c.problem("method %s: %d allowed callers are over the limit of %d", quote(m.Name), len(m.AllowedCallers), MaxCallers)
		m.AllowedCallers = nil
	}
	m.AllowedCallers = c.unique("methods", m.AllowedCallers, func(s string) {
		if !ValidName(s) {
			c.problem("method %s: allowed caller %s is not the name of a service", quote(m.Name), quote(s))
		}
	})
	if m.Timeout < 0 || m.Timeout > MaxTimeout {
		c.problem("method %s: timeout %v must be 0 to %v", quote(m.Name), m.Timeout, MaxTimeout)
	}
	if len(m.Limits) > MaxLimits {
		c.problem("method %s: %d limits are over the most of %d", quote(m.Name), len(m.Limits), MaxLimits)
		return
	}
	for i := range m.Limits {
		for _, p := range m.Limits[i].Problems() {
			c.problem("method %s: limit %d: %s", quote(m.Name), i+1, p)
		}
	}
}

func (c *checker) contentTypes(m *Method) []string {
	if len(m.ContentTypes) > 16 {
		c.problem("method %s: %d content types are over the limit of 16", quote(m.Name), len(m.ContentTypes))
		return nil
	}
	list := c.unique("methods", m.ContentTypes, func(string) {})
	return slices.DeleteFunc(list, func(s string) bool {
		if s == "proto" || s == "json" || s == "msgpack" {
			return false
		}
		c.warn("methods", m.Name, "content type %s is not known here (proto, json, msgpack are) and is ignored", quote(s))
		return true
	})
}

func validContract(s string) bool {
	hash, ok := strings.CutPrefix(s, "pb:")
	if !ok {
		hash, ok = strings.CutPrefix(s, "js:")
	}
	return ok && shaped(hash, MaxName, func(c byte) bool { return lower(c) || upper(c) || digit(c) || mark(c) || c == '=' })
}

func validMessage(s string) bool {
	if len(s) > MaxMessageName {
		return false
	}
	for part := range strings.SplitSeq(s, ".") {
		ok := shaped(part, MaxMessageName, func(c byte) bool { return lower(c) || upper(c) || digit(c) || c == '_' })
		if !ok || digit(part[0]) {
			return false
		}
	}
	return true
}
