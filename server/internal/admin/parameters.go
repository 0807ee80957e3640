package admin

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"telford.dev/telford/internal/errs"
)

// parameters are the query parameters that the OpenAPI document knows, by path. The
// gateway skips others in silence, and a misspelt filter would list everything.
type parameters []pathParameters

type pathParameters struct {
	path  *regexp.Regexp
	names map[string]bool
}

// placeholder is a part of a path that stands for a value.
var placeholder = regexp.MustCompile(`\\\{[a-z_]+\\\}`)

func readParameters(document []byte) (parameters, error) {
	var doc struct {
		Paths map[string]map[string]struct {
			Parameters []struct{ Name, In string }
		}
	}
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, fmt.Errorf("read the OpenAPI document: %w", err)
	}
	var all parameters
	// The exact ones before those that a placeholder makes fit.
	paths := slices.SortedFunc(maps.Keys(doc.Paths), func(a, b string) int { return strings.Count(a, "{") - strings.Count(b, "{") })
	for _, path := range paths {
		get, ok := doc.Paths[path]["get"]
		if !ok {
			continue
		}
		p := pathParameters{names: make(map[string]bool)}
		pattern := placeholder.ReplaceAllString(regexp.QuoteMeta(path), "[^/]+")
		var err error
		if p.path, err = regexp.Compile("^" + pattern + "$"); err != nil {
			return nil, fmt.Errorf("read the OpenAPI document: %w", err)
		}
		for _, parameter := range get.Parameters {
			if parameter.In == "query" {
				p.names[parameter.Name] = true
			}
		}
		all = append(all, p)
	}
	return all, nil
}

// check refuses a parameter that the request does not have.
func (p parameters) check(r *http.Request) *errs.Error {
	if r.Method != http.MethodGet {
		return nil
	}
	i := slices.IndexFunc(p, func(p pathParameters) bool { return p.path.MatchString(r.URL.Path) })
	if i < 0 {
		return nil // the gateway knows what to say about the path
	}
	for name := range r.URL.Query() {
		if !p[i].names[name] {
			known := "it has none"
			if len(p[i].names) > 0 {
				known = "it has " + strings.Join(slices.Sorted(maps.Keys(p[i].names)), ", ")
			}
			return errs.New(errs.InvalidArgument, "%q is not a parameter of this request; %s", name, known)
		}
	}
	return nil
}
