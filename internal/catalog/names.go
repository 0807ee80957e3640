package catalog

import (
	"net/netip"
	"strings"
)

// ValidName reports whether s is a service name, or one of the other names with its
// form (namespaces, localities, capabilities): [a-z0-9._-]{1,128}.
func ValidName(s string) bool {
	return shaped(s, MaxName, func(c byte) bool { return lower(c) || digit(c) || mark(c) })
}

// ValidID reports whether s can be the id of an instance, a realm or a version: as
// ValidName, and capital letters too.
func ValidID(s string) bool {
	return shaped(s, MaxName, func(c byte) bool { return lower(c) || upper(c) || digit(c) || mark(c) })
}

// ValidMethod reports whether s can be the name of a method: segments of letters,
// digits and ._:-, joined by slashes, 256 bytes at most in all.
func ValidMethod(s string) bool {
	if !shaped(s, MaxMethodName, func(c byte) bool {
		return lower(c) || upper(c) || digit(c) || mark(c) || c == '/' || c == ':'
	}) {
		return false
	}
	for segment := range strings.SplitSeq(s, "/") {
		if strings.Trim(segment, ".") == "" {
			return false // empty, "." and ".." mean something else in a URL
		}
	}
	return true
}

// GRPCService returns the gRPC service that a method name is of: what stands before
// its only slash. ok is false for a plain name.
func GRPCService(method string) (service string, ok bool) {
	service, rest, ok := strings.Cut(method, "/")
	return service, ok && service != "" && rest != "" && !strings.Contains(rest, "/")
}

// hostKind says what sort of address a host is.
type hostKind int

const (
	badHost hostKind = iota
	wildcardHost
	loopbackHost
	otherHost
)

func kindOfHost(host string) hostKind {
	if addr, err := netip.ParseAddr(host); err == nil {
		addr = addr.Unmap()
		switch {
		case addr.IsUnspecified():
			return wildcardHost
		case addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return badHost
		case addr.IsLoopback():
			return loopbackHost
		}
		return otherHost
	}
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	switch {
	case host == "*":
		return wildcardHost
	case name == "localhost" || strings.HasSuffix(name, ".localhost"):
		return loopbackHost
	case len(name) == 0 || len(name) > 253:
		return badHost
	}
	numeric := true
	for label := range strings.SplitSeq(name, ".") {
		ok := shaped(label, 63, func(c byte) bool { return lower(c) || digit(c) || c == '-' || c == '_' })
		if !ok || label[0] == '-' || label[len(label)-1] == '-' {
			return badHost
		}
		numeric = shaped(label, 63, digit)
	}
	if numeric {
		return badHost // such as 10.0.0 or 300.1.1.1, which resolvers read in odd ways
	}
	return otherHost
}

func shaped(s string, most int, ok func(byte) bool) bool {
	if s == "" || len(s) > most {
		return false
	}
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) bool { return 'a' <= c && c <= 'z' }
func upper(c byte) bool { return 'A' <= c && c <= 'Z' }
func digit(c byte) bool { return '0' <= c && c <= '9' }
func mark(c byte) bool  { return c == '.' || c == '_' || c == '-' }
