package catalog

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"telford.dev/telford/internal/errs"
)

// Normalize returns a copy of d with its defaults filled in, or an invalid_argument
// that lists everything that is wrong with it. The warnings say what was accepted but
// will not have its full effect; they come in either case. The copy shares no memory
// with d except strings.
func Normalize(d *Declaration) (*Declaration, []DeclarationWarning, error) {
	if d == nil {
		return nil, nil, errs.New(errs.InvalidArgument, "no declaration was given")
	}
	c := checker{d: clone(d)}
	c.identity()
	c.methods()
	c.endpoints()
	c.labels()
	c.menu()
	c.dependencies()
	c.numbers()
	if c.found > 0 {
		return nil, c.warnings, errs.New(errs.InvalidArgument, "declaration of service %s: %s", quote(d.Service), c.list())
	}
	return c.d, c.warnings, nil
}

func clone(d *Declaration) *Declaration {
	c := *d
	c.CompatibleVersions = slices.Clone(d.CompatibleVersions)
	c.Methods = slices.Clone(d.Methods)
	for i := range c.Methods {
		c.Methods[i].ContentTypes = slices.Clone(c.Methods[i].ContentTypes)
		c.Methods[i].AllowedCallers = slices.Clone(c.Methods[i].AllowedCallers)
		c.Methods[i].Limits = slices.Clone(c.Methods[i].Limits)
	}
	c.Endpoints = slices.Clone(d.Endpoints)
	c.Tags = slices.Clone(d.Tags)
	c.Metadata = maps.Clone(d.Metadata)
	c.Capabilities = slices.Clone(d.Capabilities)
	c.Menu = slices.Clone(d.Menu)
	for i := range c.Menu {
		c.Menu[i].Roles = slices.Clone(c.Menu[i].Roles)
	}
	c.Dependencies = slices.Clone(d.Dependencies)
	for i := range c.Dependencies {
		c.Dependencies[i].Names = slices.Clone(c.Dependencies[i].Names)
	}
	c.Descriptors = slices.Clone(d.Descriptors)
	return &c
}

// checker goes over one declaration, changing it in place.
type checker struct {
	d        *Declaration
	problems []string
	found    int // problems in all
	warnings []DeclarationWarning
}

// maxListed bounds the problems and warnings that are spelled out: a hostile
// declaration must not be answered with megabytes.
const maxListed = 50

func (c *checker) problem(format string, args ...any) {
	if c.found++; c.found <= maxListed {
		c.problems = append(c.problems, fmt.Sprintf(format, args...))
	}
}

func (c *checker) warn(field, value, format string, args ...any) {
	if len(c.warnings) < maxListed {
		c.warnings = append(c.warnings, DeclarationWarning{
			Declaration: field, Value: clip(value), Side: declaration, Reason: fmt.Sprintf(format, args...),
		})
	}
}

// SideDeclaration is the side of warnings that a declaration earns by itself, whatever
// policy says.
const SideDeclaration = "declaration"

const declaration = SideDeclaration

func (c *checker) identity() {
	d := c.d
	if !ValidName(d.Service) {
		c.problem("service %s must be 1 to %d of a-z, 0-9, '.', '_', '-'", quote(d.Service), MaxName)
	}
	if d.Realm == "" {
		d.Realm = DefaultRealm
	}
	if !ValidID(d.Realm) {
		c.problem("realm %s must be 1 to %d letters, digits, '.', '_', '-'; wildcards are for callers", quote(d.Realm), MaxName)
	}
	if d.Version != "" && !validVersion(d.Version) {
		c.problem("version %s must be 1 to %d letters, digits, '.', '_', '-', '+'", quote(d.Version), MaxName)
	}
	c.count("compatible_versions", len(d.CompatibleVersions), MaxVersions)
	d.CompatibleVersions = c.unique("compatible_versions", d.CompatibleVersions, func(v string) {
		if !validVersion(v) {
			c.problem("compatible version %s must be 1 to %d letters, digits, '.', '_', '-', '+'", quote(v), MaxName)
		}
	})
	if d.Scope == "" {
		d.Scope = ScopeZone
	}
	if d.Scope != ScopeZone && d.Scope != ScopeGlobal {
		c.problem("scope %s must be %q or %q", quote(string(d.Scope)), ScopeZone, ScopeGlobal)
	}
	if d.Locality != "" && !ValidID(d.Locality) {
		c.problem("locality %s must be 1 to %d letters, digits, '.', '_', '-'", quote(d.Locality), MaxName)
	}
	if d.Status == "" {
		d.Status = OK
	}
	if err := CheckStatus(d.Status, d.StatusMessage); err != nil {
		c.problem("%s", err.Message)
	}
	c.text("sdk", d.SDK, MaxName)
}

// CheckStatus reports what is wrong with a status and its message; nil if nothing is.
func CheckStatus(s Status, message string) *errs.Error {
	switch {
	case !s.Known():
		return errs.New(errs.InvalidArgument, "status %s must be OK, WARNING, ERROR, SUSPENDED or OFFLINE", quote(string(s)))
	case len(message) > MaxText:
		return errs.New(errs.InvalidArgument, "status message of %d bytes is over the limit of %d", len(message), MaxText)
	case !utf8.ValidString(message):
		return errs.New(errs.InvalidArgument, "status message %s is not valid UTF-8", quote(message))
	}
	return nil
}

func validVersion(s string) bool {
	return shaped(s, MaxName, func(c byte) bool {
		return lower(c) || upper(c) || digit(c) || mark(c) || c == '+'
	})
}

func (c *checker) numbers() {
	d := c.d
	if d.Weight == 0 {
		d.Weight = 1
	}
	if d.Weight < 1 || d.Weight > MaxWeight {
		c.problem("weight %d must be 1 to %d", d.Weight, MaxWeight)
	}
	if d.TTL == 0 {
		d.TTL = DefaultTTL
	}
	if d.TTL < MinTTL || d.TTL > MaxTTL {
		c.problem("ttl %s must be %s to %s", d.TTL, MinTTL, MaxTTL)
	}
	if len(d.Descriptors) > MaxDescriptors {
		c.problem("descriptors of %d bytes are over the limit of %d; leave out files that no method uses", len(d.Descriptors), MaxDescriptors)
	}
}

// count reports a list that is too long. Its entries are looked at nevertheless: the
// checks are linear in what was sent.
func (c *checker) count(field string, n, most int) {
	if n > most {
		c.problem("%d %s are over the limit of %d", n, field, most)
	}
}

func (c *checker) text(field, s string, most int) {
	if len(s) > most {
		c.problem("%s of %d bytes is over the limit of %d", field, len(s), most)
	}
	if !utf8.ValidString(s) {
		c.problem("%s %s is not valid UTF-8", field, quote(s))
	}
}

// unique returns list without repetitions, warning of each, after checking every
// entry.
func (c *checker) unique(field string, list []string, check func(string)) []string {
	seen := make(map[string]bool, len(list))
	return slices.DeleteFunc(list, func(s string) bool {
		if seen[s] {
			c.warn(field, s, "given twice; counts once")
			return true
		}
		seen[s] = true
		check(s)
		return false
	})
}

// list spells the problems out.
func (c *checker) list() string {
	s := strings.Join(c.problems, "; ")
	if n := c.found - len(c.problems); n > 0 {
		s += fmt.Sprintf("; and %d more", n)
	}
	return s
}

// quote prints a value from outside, whatever it is, at a bearable length.
func quote(s string) string { return fmt.Sprintf("%q", clip(s)) }

func clip(s string) string {
	const most = 160
	if len(s) > most {
		s = s[:most] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
