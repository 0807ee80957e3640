package restdoor

import (
	"net/url"
	"strconv"
	"strings"

	"telford.dev/telford/registry/rest"
)

// limit reads how many items a page is to have.
func (q *request) limit() (int, *rest.Fault) {
	text, given, several := q.one("limit")
	if !given {
		return rest.DefaultLimit, nil
	}
	if several || !digits(text) {
		return 0, rest.NewFault(rest.FaultInvalidLimit, "Invalid limit", "Limit must be a number")
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > rest.MaxLimit {
		shown := strings.TrimLeft(text, "0")
		if shown == "" {
			shown = "0"
		}
		return 0, rest.NewFault(rest.FaultInvalidLimit, "Invalid limit",
			"Invalid limit "+shown+". Minimum limit is 1 and maximum limit is 1000.")
	}
	return n, nil
}

// marker reads where a page is to begin; nil: at the beginning.
func (q *request) marker() (*string, *rest.Fault) {
	text, given, several := q.one("marker")
	if !given {
		return nil, nil //nolint:nilnil // no marker is no fault
	}
	ok := !several && len(text) <= 255
	for i := 0; ok && i < len(text); i++ {
		ok = idChar(text[i]) || text[i] == ':' || text[i] == '/'
	}
	if !ok {
		return nil, invalidParameter("marker", `Value does not match the pattern ^[A-Za-z0-9\-:_./]{0,255}$`)
	}
	return &text, nil
}

// page is an answer with some items of a list. next is the id of the first item of the
// next page, "" if there is none.
func page[T any](q *request, values []T, limit int, marker *string, next string) *rest.Page[T] {
	if values == nil {
		values = []T{}
	}
	p := &rest.Page[T]{Values: values, Metadata: rest.PageMetadata{Count: len(values), Limit: limit, Marker: marker}}
	if next != "" {
		href := q.href(next)
		p.Metadata.NextMarker, p.Metadata.NextHref = &next, &href
	}
	return p
}

// href is the address of the page that begins with marker: that of the request with its
// query in its order.
func (q *request) href(marker string) string {
	var b strings.Builder
	b.WriteString(q.base + q.path)
	separator := byte('?')
	add := func(name, value string) {
		b.WriteByte(separator)
		separator = '&'
		b.WriteString(escape(name) + "=" + escape(value))
	}
	done := false
	for pair := range strings.SplitSeq(q.http.URL.RawQuery, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		value, err2 := url.QueryUnescape(value)
		if err != nil || err2 != nil || name == "" {
			continue
		}
		if name == "marker" {
			value, done = marker, true
		}
		add(name, value)
	}
	if !done {
		add("marker", marker)
	}
	return b.String()
}

func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }
