package link

import "encoding/binary"

// nameWriter is the sending half of the interning of one direction: which strings the
// other end knows by number.
type nameWriter struct {
	ids   map[string]uint16
	bytes int
}

// define appends a DEFINE frame for s to b when the other end does not know it yet and
// the table has room.
func (n *nameWriter) define(b []byte, s string) []byte {
	if _, ok := n.ids[s]; ok {
		return b
	}
	if len(n.ids) >= maxNames || n.bytes+len(s) > maxNameBytes || len(s) == 0 {
		return b
	}
	if n.ids == nil {
		n.ids = make(map[string]uint16)
	}
	id := uint16(len(n.ids))
	n.ids[s] = id
	n.bytes += len(s)
	b = appendHeader(b, frameDefine, 0, 0, 2+len(s))
	b = binary.BigEndian.AppendUint16(b, id)
	return append(b, s...)
}

// nameReader is the receiving half.
type nameReader struct {
	names []string
	bytes int
}

func (n *nameReader) define(p []byte) error {
	if len(p) < 3 {
		return protocolError("a DEFINE frame of %d bytes", len(p))
	}
	id, name := int(binary.BigEndian.Uint16(p)), string(p[2:])
	if id != len(n.names) {
		return protocolError("name %d was defined where %d was next", id, len(n.names))
	}
	if len(n.names) >= maxNames || n.bytes+len(name) > maxNameBytes {
		return protocolError("more than %d names or %d bytes of them were defined", maxNames, maxNameBytes)
	}
	n.names = append(n.names, name)
	n.bytes += len(name)
	return nil
}
