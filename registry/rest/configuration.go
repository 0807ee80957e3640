package rest

import (
	"context"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"telford.dev/telford/internal/errs"
)

// ConfigurationValue is one value of an account's configuration.
type ConfigurationValue struct {
	// ID is a plain name, such as "port", or a namespaced one that begins with a slash,
	// such as "/production/cassandra/port".
	ID string `json:"id"`
	// Value has 1 to 1024 characters.
	Value string `json:"value"`
}

// ConfigurationQuery chooses values. Its zero value is the first page of all.
type ConfigurationQuery struct {
	// Namespace keeps the values below it, at any depth: "production", with or without
	// slashes around it. The original server also lists siblings that merely begin with
	// the same text; WatchConfiguration leaves them out.
	Namespace string
	// Marker is the id at which the page begins, itself included; it need not exist.
	Marker string
	// Limit is the size of a page: 1 to 1000, 0 for the server's default of 100.
	Limit int
}

func (q ConfigurationQuery) values() (url.Values, error) { return pageValues(q.Marker, q.Limit) }

func (q ConfigurationQuery) path() string {
	namespace := strings.Trim(q.Namespace, "/")
	if namespace == "" {
		return "/configuration"
	}
	return "/configuration/" + escapeID(namespace) + "/"
}

// ListConfiguration returns one page of values, sorted by id.
func (c *Client) ListConfiguration(ctx context.Context, q ConfigurationQuery) (Page[ConfigurationValue], error) {
	return list[ConfigurationValue](ctx, c, "list configuration", q.path(), q.values)
}

// EachConfiguration iterates over all values that q chooses, from its marker on, a page
// of its limit at a time. The first error ends the iteration.
func (c *Client) EachConfiguration(ctx context.Context, q ConfigurationQuery) iter.Seq2[ConfigurationValue, error] {
	return each(q.Marker, func(v ConfigurationValue) string { return v.ID }, func(marker string) (Page[ConfigurationValue], error) {
		q.Marker = marker
		return c.ListConfiguration(ctx, q)
	})
}

// GetConfiguration returns the value with an id, or ErrNotFound. An id in a namespace
// begins with a slash; one that ends with a slash names a namespace, which is no value.
func (c *Client) GetConfiguration(ctx context.Context, id string) (ConfigurationValue, error) {
	var v ConfigurationValue
	p, err := configurationPath("get configuration", id)
	if err != nil {
		return v, err
	}
	if strings.HasSuffix(id, "/") {
		return v, errs.New(errs.InvalidArgument, "get configuration %s: this is a namespace; list it with ListConfiguration", id)
	}
	err = c.do(ctx, request{op: "get configuration " + id, method: http.MethodGet, path: p}, &v)
	return v, err
}

// SetConfiguration stores a value. ErrLimitReached: the account has as many as it may.
func (c *Client) SetConfiguration(ctx context.Context, id, value string) error {
	p, err := configurationPath("set configuration", id)
	if err != nil {
		return err
	}
	body := struct {
		Value string `json:"value"`
	}{value}
	return c.do(ctx, request{op: "set configuration " + id, method: http.MethodPut, path: p, body: body}, nil)
}

// RemoveConfiguration removes a value. ErrNotFound: there is none with this id.
func (c *Client) RemoveConfiguration(ctx context.Context, id string) error {
	p, err := configurationPath("remove configuration", id)
	if err != nil {
		return err
	}
	return c.do(ctx, request{op: "remove configuration " + id, method: http.MethodDelete, path: p}, nil)
}

// configurationPath appends an id as it is, its own slashes included.
func configurationPath(op, id string) (string, error) {
	if strings.Trim(id, "/") == "" {
		return "", errs.New(errs.InvalidArgument, "%s: %q is not the id of a value", op, id)
	}
	return "/configuration/" + escapeID(id), nil
}

// escapeID escapes the parts of an id and leaves its slashes.
func escapeID(id string) string {
	parts := strings.Split(id, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return strings.Join(parts, "/")
}
