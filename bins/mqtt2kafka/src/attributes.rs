//! Paths of attributes, and the tree that a set of them makes. It owns how a path is written; going through a payload by
//! the tree is `json`'s.

/// A path into nested objects, written with dots: `A.B.C` is the member `C` of the object `B` of the object `A`. So an
/// attribute whose own name holds a dot cannot be named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path(Vec<Box<str>>);

impl Path {
    /// Reads a path. The error says which rule it breaks, as "must …".
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let names: Vec<Box<str>> = text.split('.').map(Into::into).collect();
        if names.iter().any(|name| name.is_empty()) {
            return Err(format!("must be names with dots between them, such as \"A.B.C\", not {text:?}"));
        }
        Ok(Self(names))
    }
}

/// What is looked for in payloads: attributes to leave out, and one to read.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// The first is the root.
    nodes: Vec<Vec<Member>>,
    removes: bool,
}

/// A member of an object that paths lead to or through.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    name: Box<str>,
    /// Whether it is left out.
    pub(crate) removed: bool,
    /// Whether it is what is read.
    pub(crate) read: bool,
    /// What is looked for in it; the root if nothing is.
    pub(crate) within: usize,
}

/// The object that is the payload.
pub(crate) const ROOT: usize = 0;

impl Wanted {
    /// These paths are left out, and `read` is read, which may be one of them.
    pub(crate) fn new<'a>(removed: impl IntoIterator<Item = &'a Path>, read: Option<&Path>) -> Self {
        let mut wanted = Self { nodes: vec![Vec::new()], removes: false };
        for path in removed {
            wanted.removes = true;
            if let Some(member) = wanted.member(path) {
                member.removed = true;
            }
        }
        if let Some(member) = read.and_then(|path| wanted.member(path)) {
            member.read = true;
        }
        wanted
    }

    /// Whether anything is left out.
    pub(crate) fn removes(&self) -> bool {
        self.removes
    }

    /// Whether anything is looked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes[ROOT].is_empty()
    }

    /// What is looked for in an object under this name.
    pub(crate) fn find(&self, object: usize, name: &[u8]) -> Option<&Member> {
        self.nodes[object].iter().find(|member| *member.name.as_bytes() == *name)
    }

    fn member(&mut self, path: &Path) -> Option<&mut Member> {
        let (last, through) = path.0.split_last()?;
        let mut object = ROOT;
        for name in through {
            let at = self.place(object, name);
            if self.nodes[object][at].within == ROOT {
                self.nodes[object][at].within = self.nodes.len();
                self.nodes.push(Vec::new());
            }
            object = self.nodes[object][at].within;
        }
        let at = self.place(object, last);
        Some(&mut self.nodes[object][at])
    }

    fn place(&mut self, object: usize, name: &str) -> usize {
        let members = &mut self.nodes[object];
        members.iter().position(|member| *member.name == *name).unwrap_or_else(|| {
            members.push(Member { name: name.into(), removed: false, read: false, within: ROOT });
            members.len() - 1
        })
    }
}
