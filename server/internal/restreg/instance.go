package restreg

import (
	"net"
	"strconv"
	"strings"
	"time"

	"telford.dev/telford/internal/catalog"
)

// The keys of metadata that mean something here.
const (
	metaService = "service" // the name that others call it by
	metaMethods = "methods" // what it can be asked to do, by commas
	metaHost    = "host"
	metaPort    = "port"
)

// slack is how much longer than a service its instance would live if nobody ended it.
const slack = time.Minute

// ServiceName is the name of a service among all others: metadata "service", or the id,
// in lower case. Where either is no name, the id with what does not fit replaced; names
// of the runtime itself get "rest." in front.
func ServiceName(id string, metadata map[string]string) string {
	name := lower(metadata[metaService])
	if !catalog.ValidName(name) {
		name = lower(id)
	}
	if name == "telford" || strings.HasPrefix(name, "telford.") {
		name = "rest." + name
	}
	return name
}

// lower folds ASCII letters only.
func lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}, s)
}

// Address is where a service with such metadata is called, "" where it does not say.
func Address(metadata map[string]string) string {
	host, port := metadata[metaHost], metadata[metaPort]
	n, err := strconv.Atoi(port)
	if host == "" || err != nil || n < 1 || n > 65535 || strings.ContainsAny(host, "/?#@ \t\r\n\\%") || !printable(host) {
		return ""
	}
	return net.JoinHostPort(strings.Trim(host, "[]"), strconv.Itoa(n))
}

// declaration is a service as an instance. What is no tag, key or method there is left
// out: the services themselves keep it.
func declaration(id string, s *spec) *catalog.Declaration {
	d := &catalog.Declaration{
		Service: ServiceName(id, s.Metadata), TTL: time.Duration(s.Timeout)*time.Second + slack, SDK: "rest",
		Metadata: make(map[string]string, len(s.Metadata)),
	}
	for _, tag := range s.Tags {
		if printable(tag) && len(tag) <= catalog.MaxName && !contains(d.Tags, tag) {
			d.Tags = append(d.Tags, tag)
		}
	}
	for k, v := range s.Metadata {
		if printable(k) && len(k) <= catalog.MaxName {
			d.Metadata[k] = v
		}
	}
	for name := range strings.SplitSeq(s.Metadata[metaMethods], ",") {
		name = strings.TrimSpace(name)
		if catalog.ValidMethod(name) && !hasMethod(d.Methods, name) {
			d.Methods = append(d.Methods, catalog.Method{Name: name, Kind: catalog.Unary, ContentTypes: []string{"json"}})
		}
	}
	return d
}

// callable is where an instance of a service is called, "" if it cannot be.
func callable(s *spec) string {
	if s.Metadata[metaMethods] == "" {
		return ""
	}
	return Address(s.Metadata)
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

func hasMethod(list []catalog.Method, name string) bool {
	for i := range list {
		if list[i].Name == name {
			return true
		}
	}
	return false
}

// printable reports text that is not empty and has no control characters.
func printable(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
