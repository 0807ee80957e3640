package rest

// The bounds of a page.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Page is a part of a list.
type Page[T any] struct {
	Values   []T          `json:"values"`
	Metadata PageMetadata `json:"metadata"`
}

// PageMetadata says which part of the list a page is, and where the next one begins.
type PageMetadata struct {
	// Count is the number of values in this page.
	Count int `json:"count"`
	// Limit is the most values that the page could have.
	Limit int `json:"limit"`
	// Marker is what was asked for, nil for a first page and for events.
	Marker *string `json:"marker"`
	// NextMarker is the id with which the next page begins, nil at the end of the list.
	NextMarker *string `json:"next_marker"`
	// NextHref is the URL of the next page, nil at the end of the list.
	NextHref *string `json:"next_href"`
}

// next returns the marker of the next page, empty at the end of the list.
func (m PageMetadata) next() string {
	if m.NextMarker == nil {
		return ""
	}
	return *m.NextMarker
}
