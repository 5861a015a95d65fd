//! What a live object has in lists that are wholly ours, beyond what is declared.
//!
//! A server-side apply takes away only what we have applied before. A container, port or subject that another hand adds beside ours would
//! stay: it would run with the pods' credentials, or be let in. So these lists are ours as a whole, and what is not declared has to go.
//! Of a workload only the template is checked. Injectors of sidecars act on pods, which are no children of ours. Labels,
//! annotations, finalizers, pull secrets of a ServiceAccount, and fields that the API server fills in are in none of these lists:
//! they stay as they are.

use serde_json::{Value, json};

/// A list of which all items are ours.
struct List {
    /// Where it is: in the object, or in the item that has it.
    path: &'static [&'static str],
    items: Items,
}

/// How its items are told apart.
enum Items {
    /// By these fields. An item may have more fields than are declared (others', and defaults), and lists of its own.
    Keyed(&'static [&'static str], &'static [List]),
    /// By all that they are. One more field makes another item: a peer with a `namespaceSelector` besides lets whole namespaces in.
    Whole,
}

const CONTAINER: &[List] = &[
    keyed(&["ports"], &["containerPort", "protocol"], &[]),
    keyed(&["env"], &["name"], &[]),
    whole(&["envFrom"]),
    keyed(&["volumeMounts"], &["mountPath"], &[]),
    keyed(&["volumeDevices"], &["devicePath"], &[]),
];

const WORKLOAD: &[List] = &[
    keyed(&["spec", "template", "spec", "containers"], &["name"], CONTAINER),
    keyed(&["spec", "template", "spec", "initContainers"], &["name"], CONTAINER),
    keyed(&["spec", "template", "spec", "volumes"], &["name"], &[]),
];

const fn keyed(path: &'static [&'static str], keys: &'static [&'static str], lists: &'static [List]) -> List {
    List {
        path,
        items: Items::Keyed(keys, lists),
    }
}

const fn whole(path: &'static [&'static str]) -> List {
    List {
        path,
        items: Items::Whole,
    }
}

fn lists(kind: &str) -> &'static [List] {
    match kind {
        "Deployment" | "StatefulSet" => WORKLOAD,
        "Service" => const { &[keyed(&["spec", "ports"], &["port", "protocol"], &[])] },
        "Role" => const { &[whole(&["rules"])] },
        "RoleBinding" => const { &[whole(&["subjects"])] },
        "NetworkPolicy" => {
            const {
                &[
                    whole(&["spec", "policyTypes"]),
                    whole(&["spec", "ingress"]),
                    whole(&["spec", "egress"]),
                ]
            }
        }
        _ => &[],
    }
}

/// What is to go, and how.
#[derive(Debug, Default)]
pub(super) struct Surplus {
    /// Each item with its list, for people.
    pub(super) items: Vec<String>,
    /// What takes them out, as operations of a JSON patch. They name places in lists, so they hold for one version alone.
    operations: Vec<Value>,
}

impl Surplus {
    /// What `live` has beyond `declared`, by the lists of its kind.
    pub(super) fn of(live: &Value, declared: &Value) -> Self {
        let mut surplus = Self::default();
        let kind = declared["kind"].as_str().unwrap_or_default();
        for list in lists(kind) {
            surplus.look(list, live, declared, &Place::default());
        }
        surplus
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// A JSON patch that takes all of it out of the object of just this version. Of another one the API server says that it conflicts.
    pub(super) fn patch(&self, version: Option<&str>) -> Value {
        let mut operations = vec![operation("replace", "/metadata/resourceVersion", Some(json!(version)))];
        operations.extend(self.operations.iter().cloned());
        operations.into()
    }

    fn look(&mut self, list: &List, live: &Value, declared: &Value, within: &Place) {
        let place = within.list(list.path);
        let (live, declared) = (items(live, list.path), items(declared, list.path));
        let known = self.items.len();
        let mut missing: Vec<&Value> = declared.iter().collect();
        match list.items {
            Items::Whole => {
                for item in live {
                    match missing.iter().position(|wanted| *wanted == item) {
                        Some(found) => {
                            missing.swap_remove(found);
                        }
                        None => self.items.push(format!("{} in {}", short(item), place.words)),
                    }
                }
                if self.items.len() > known {
                    self.operations.push(in_place_of(&place, declared));
                }
            }
            Items::Keyed(keys, lists) => {
                let mut foreign = Vec::new();
                for (number, item) in live.iter().enumerate() {
                    let name = name(item, keys);
                    match missing.iter().position(|wanted| self::name(wanted, keys) == name) {
                        // A second one of that name is nobody's of ours: of two variables the last one would count.
                        Some(found) => {
                            let wanted = missing.swap_remove(found);
                            for list in lists {
                                self.look(list, item, wanted, &place.item(number, &name));
                            }
                        }
                        None => {
                            self.items.push(format!("{name} in {}", place.words));
                            foreign.push(number);
                        }
                    }
                }
                if foreign.is_empty() {
                    return;
                }
                if missing.is_empty() {
                    // From the end on, so that the places before stay what they are.
                    let removals = foreign.iter().rev();
                    let removals = removals.map(|number| operation("remove", &place.item(*number, "").pointer, None));
                    self.operations.extend(removals);
                } else {
                    // Something stands in the place of ours. A list without any may be refused, and so may both beside each other.
                    self.operations.push(in_place_of(&place, declared));
                }
            }
        }
    }
}

/// Where a list or an item is: as a JSON pointer, and for people.
#[derive(Debug, Default)]
struct Place {
    pointer: String,
    words: String,
}

impl Place {
    fn list(&self, path: &[&str]) -> Self {
        let dot = if self.words.is_empty() { "" } else { "." };
        Self {
            pointer: format!("{}/{}", self.pointer, path.join("/")),
            words: format!("{}{dot}{}", self.words, path.join(".")),
        }
    }

    fn item(&self, number: usize, name: &str) -> Self {
        Self {
            pointer: format!("{}/{number}", self.pointer),
            words: format!("{}[{name}]", self.words),
        }
    }
}

fn items<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    let found = path.iter().try_fold(object, |object, step| object.get(*step));
    found.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// What tells an item apart, in words.
fn name(item: &Value, keys: &[&str]) -> String {
    let fields = keys.iter().map(|key| match (item.get(*key), *key) {
        (Some(Value::String(text)), _) => text.clone(),
        // The API server fills it in.
        (None | Some(Value::Null), "protocol") => "TCP".to_owned(),
        (Some(value), _) => value.to_string(),
        (None, _) => String::new(),
    });
    fields.collect::<Vec<_>>().join("/")
}

/// An item as JSON that a line has room for.
fn short(item: &Value) -> String {
    const MOST: usize = 200;
    let text = item.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn in_place_of(list: &Place, declared: &[Value]) -> Value {
    if declared.is_empty() {
        operation("remove", &list.pointer, None)
    } else {
        operation("replace", &list.pointer, Some(declared.into()))
    }
}

fn operation(what: &str, pointer: &str, value: Option<Value>) -> Value {
    let mut operation = json!({"op": what, "path": pointer});
    if let Some(value) = value {
        operation["value"] = value;
    }
    operation
}

#[cfg(test)]
pub(super) mod tests;
