package catalog

import (
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

func (c *checker) labels() {
	d := c.d
	c.count("tags", len(d.Tags), MaxTags)
	d.Tags = c.unique("tags", d.Tags, func(s string) {
		if s == "" || len(s) > MaxName || !printable(s) {
			c.problem("tag %s must be 1 to %d bytes of printable text", quote(s), MaxName)
		}
	})
	size := 0
	for _, k := range sortedKeys(d.Metadata) {
		v := d.Metadata[k]
		size += len(k) + len(v)
		if k == "" || len(k) > MaxName || !printable(k) {
			c.problem("metadata key %s must be 1 to %d bytes of printable text", quote(k), MaxName)
		}
		if !utf8.ValidString(v) {
			c.problem("metadata %s: value %s is not valid UTF-8", quote(k), quote(v))
		}
	}
	if size > MaxMetadata {
		c.problem("metadata of %d bytes is over the limit of %d", size, MaxMetadata)
	}
	c.count("capabilities", len(d.Capabilities), MaxCapabilities)
	d.Capabilities = c.unique("capabilities", d.Capabilities, func(s string) {
		if !ValidName(s) {
			c.problem("capability %s must be 1 to %d of a-z, 0-9, '.', '_', '-'", quote(s), MaxName)
		}
	})
}

func (c *checker) menu() {
	d := c.d
	c.count("menu items", len(d.Menu), MaxMenu)
	seen := make(map[string]bool, len(d.Menu))
	for _, m := range d.Menu {
		if !ValidID(m.ID) {
			c.problem("menu item %s: the id must be 1 to %d letters, digits, '.', '_', '-'", quote(m.ID), MaxName)
		}
		if seen[m.ID] {
			c.problem("menu item %s is declared twice", quote(m.ID))
		}
		seen[m.ID] = true
		if m.Label == "" {
			c.problem("menu item %s has no label", quote(m.ID))
		}
		c.text("label of menu item "+quote(m.ID), m.Label, MaxText)
		c.text("icon of menu item "+quote(m.ID), m.Icon, MaxText)
		if m.Kind != "LINK" && m.Kind != "IFRAME" && m.Kind != "MODAL" {
			c.problem("menu item %s: kind %s must be LINK, IFRAME or MODAL", quote(m.ID), quote(m.Kind))
		}
		if !validPath(m.Path) {
			c.problem("menu item %s: path %s must begin with '/' or be an http or https URL", quote(m.ID), quote(m.Path))
		}
		c.count("roles of menu item "+quote(m.ID), len(m.Roles), MaxTags)
		for _, role := range m.Roles {
			if !ValidName(role) {
				c.problem("menu item %s: role %s must be 1 to %d of a-z, 0-9, '.', '_', '-'", quote(m.ID), quote(role), MaxName)
			}
		}
	}
}

// validPath accepts what the console may put behind a click; javascript: and the like
// it may not.
func validPath(s string) bool {
	if s == "" || len(s) > MaxText || !printable(s) {
		return false
	}
	u, err := url.Parse(s)
	if err != nil {
		return false
	}
	if u.Scheme == "" {
		return u.Host == "" && strings.HasPrefix(s, "/")
	}
	return (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// printable reports valid UTF-8 without control characters.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
