//! Follows a pickle without running it: values are plain data, the few names it may mention are markers, and calling one of them
//! yields a marker or the description of a tensor. Everything else is refused.

use super::{
    CONVERT,
    lexer::{Lexer, Op},
};
use equivbench_dataset_tools::DAMAGED;
use equivbench_plugin::{PluginError, PluginResult};
use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    io::Read,
    rc::Rc,
};

/// Python appends a thousand items at once; more values than this never wait.
const MAX_STACK: usize = 1 << 17;
/// A tensor's arguments are tuples in a tuple.
const MAX_TUPLE_DEPTH: u8 = 8;
const MAX_TUPLE_ITEMS: usize = 64;

/// One dict of the list, as far as it matters.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) smiles: Option<Rc<str>>,
    pub(super) coords: Option<Rc<Tensor>>,
    pub(super) channels: Option<Rc<Tensor>>,
}

/// A contiguous view of a storage.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) storage: Rc<Storage>,
    /// First element.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    /// Product of the shape.
    pub(super) elements: u64,
}

/// The entry `data/<key>` with its type.
#[derive(Debug)]
pub(super) struct Storage {
    pub(super) dtype: Dtype,
    pub(super) key: Rc<str>,
    pub(super) elements: u64,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Dtype {
    F32,
    F64,
    I32,
    I64,
}

/// What a pickle of this layout may name.
#[derive(Clone, Copy, Debug)]
enum Global {
    RebuildTensor,
    Storage(Dtype),
    OrderedDict,
    Encode,
    Molecule,
    Reconstructor,
    Object,
}

impl Global {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "torch._utils _rebuild_tensor_v2" => Self::RebuildTensor,
            "torch FloatStorage" => Self::Storage(Dtype::F32),
            "torch DoubleStorage" => Self::Storage(Dtype::F64),
            "torch IntStorage" => Self::Storage(Dtype::I32),
            "torch LongStorage" => Self::Storage(Dtype::I64),
            "collections OrderedDict" => Self::OrderedDict,
            "_codecs encode" => Self::Encode,
            "rdkit.Chem.rdchem Mol" => Self::Molecule,
            "copyreg _reconstructor" | "copy_reg _reconstructor" => Self::Reconstructor,
            "builtins object" | "__builtin__ object" => Self::Object,
            _ => return None,
        })
    }
}

#[derive(Clone, Debug)]
enum Value {
    /// The list that is handed over item by item.
    Root,
    Inert,
    /// An RDKit molecule; its bytes are not looked at.
    Molecule,
    Int(i64),
    Text(Rc<str>),
    Global(Global),
    Tuple(Rc<Tuple>),
    /// Holds no further `Value`, so that no chain of them can grow.
    Record(Rc<RefCell<Record>>),
    Storage(Rc<Storage>),
    Tensor(Rc<Tensor>),
}

#[derive(Debug)]
struct Tuple {
    items: Vec<Value>,
    depth: u8,
}

/// The state of a pickle that is being followed.
pub(super) struct Machine {
    stack: Vec<Value>,
    marks: Vec<usize>,
    memo: HashMap<u32, Value>,
    /// Memo indices that some later step asks for.
    fetched: HashSet<u32>,
    next_index: u32,
    has_root: bool,
}

type Step<T> = Result<T, String>;

impl Machine {
    pub(super) fn new(fetched: HashSet<u32>) -> Self {
        Self {
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            fetched,
            next_index: 0,
            has_root: false,
        }
    }

    /// Follows the pickle to its end and hands over each record of its list.
    ///
    /// # Errors
    /// A step that is not allowed or makes no sense, or an error of `take`.
    pub(super) fn run(
        mut self,
        lexer: &mut Lexer<'_, impl Read>,
        take: &mut impl FnMut(&Record) -> PluginResult<()>,
    ) -> PluginResult<()> {
        loop {
            match lexer.step()? {
                Op::Stop => return self.finish(lexer),
                Op::Append => {
                    let items = self
                        .pop()
                        .map(|item| vec![item])
                        .map_err(|what| impossible(lexer, &what))?;
                    self.append(items, lexer, take)?;
                }
                Op::Appends => {
                    let items = self
                        .pop_to_mark()
                        .map_err(|what| impossible(lexer, &what))?;
                    self.append(items, lexer, take)?;
                }
                op => self.apply(op).map_err(|what| impossible(lexer, &what))?,
            }
            if self.stack.len() + self.marks.len() > MAX_STACK {
                return Err(impossible(
                    lexer,
                    &format!("more than {MAX_STACK} values are waiting"),
                ));
            }
        }
    }

    fn finish(&self, lexer: &Lexer<'_, impl Read>) -> PluginResult<()> {
        match self.stack[..] {
            [Value::Root] if self.marks.is_empty() => Ok(()),
            [ref other] => Err(lexer.wrong(
                format!("it holds {} and not a list of dicts", describe(other)),
                CONVERT,
            )),
            _ => Err(lexer.wrong("it ends with unused values", DAMAGED)),
        }
    }

    /// Adds items to the list below them; those of the root are handed over and forgotten.
    fn append(
        &mut self,
        items: Vec<Value>,
        lexer: &Lexer<'_, impl Read>,
        take: &mut impl FnMut(&Record) -> PluginResult<()>,
    ) -> PluginResult<()> {
        match self.top().map_err(|what| impossible(lexer, &what))? {
            Value::Root => items.iter().try_for_each(|item| match item {
                Value::Record(record) => take(&record.borrow()),
                other => Err(lexer.wrong(
                    format!("an item of the list is {} and not a dict", describe(other)),
                    CONVERT,
                )),
            }),
            Value::Inert => Ok(()),
            other => Err(impossible(
                lexer,
                &format!("something is appended to {}", describe(other)),
            )),
        }
    }

    fn apply(&mut self, op: Op) -> Step<()> {
        let value = match op {
            Op::Nothing | Op::Stop | Op::Append | Op::Appends => return Ok(()),
            Op::Mark => {
                self.marks.push(self.stack.len());
                return Ok(());
            }
            Op::Put(index) => return self.put(index),
            Op::SetItem => {
                let (value, key) = (self.pop()?, self.pop()?);
                return self.set_items(&[key, value]);
            }
            Op::SetItems => {
                let items = self.pop_to_mark()?;
                return self.set_items(&items);
            }
            Op::Build => return self.build(),
            Op::Inert => Value::Inert,
            Op::Int(n) => Value::Int(n),
            Op::Text(text) => Value::Text(text),
            Op::Global(name) => global(&name)?,
            Op::StackGlobal => self.stack_global()?,
            Op::EmptyList => self.list(),
            Op::EmptyDict => Value::Record(Rc::default()),
            Op::EmptyTuple => tuple(Vec::new())?,
            Op::Tuple(n) => self.tuple_of(n)?,
            Op::TupleToMark => tuple(self.pop_to_mark()?)?,
            Op::PersistentId => storage(&self.pop()?)?,
            Op::Reduce => self.reduce()?,
            Op::Get(index) => self
                .memo
                .get(&index)
                .cloned()
                .ok_or_else(|| format!("value {index} was never remembered"))?,
        };
        self.stack.push(value);
        Ok(())
    }

    fn put(&mut self, index: Option<u32>) -> Step<()> {
        let index = index.unwrap_or(self.next_index);
        self.next_index = self.next_index.saturating_add(1);
        let value = self.top()?;
        if self.fetched.contains(&index) {
            let value = value.clone();
            self.memo.insert(index, value);
        }
        Ok(())
    }

    /// The first list of a pickle is its root.
    fn list(&mut self) -> Value {
        if self.has_root || !self.stack.is_empty() {
            return Value::Inert;
        }
        self.has_root = true;
        Value::Root
    }

    fn set_items(&mut self, items: &[Value]) -> Step<()> {
        let record = match self.top()? {
            Value::Record(record) => Rc::clone(record),
            Value::Inert => return Ok(()),
            other => return Err(format!("a key is set in {}", describe(other))),
        };
        let mut record = record.borrow_mut();
        let (pairs, rest) = items.as_chunks::<2>();
        if !rest.is_empty() {
            return Err("a key has no value".into());
        }
        for [key, value] in pairs {
            let Value::Text(key) = key else { continue };
            match &**key {
                "smiles" => record.smiles = value.text().cloned(),
                "coords" => record.coords = value.tensor().cloned(),
                "atoms_channel" => record.channels = value.tensor().cloned(),
                _ => (),
            }
        }
        Ok(())
    }

    fn build(&mut self) -> Step<()> {
        self.pop()?;
        match self.top()? {
            Value::Molecule => Ok(()),
            other => Err(format!(
                "BUILD would change {}, which is refused",
                describe(other)
            )),
        }
    }

    fn stack_global(&mut self) -> Step<Value> {
        match (self.pop()?, self.pop()?) {
            (Value::Text(name), Value::Text(module)) => global(&format!("{module} {name}")),
            _ => Err("STACK_GLOBAL without names".into()),
        }
    }

    fn tuple_of(&mut self, n: usize) -> Step<Value> {
        let from = self
            .stack
            .len()
            .checked_sub(n)
            .filter(|&from| from >= self.floor())
            .ok_or(EMPTY)?;
        tuple(self.stack.split_off(from))
    }

    fn reduce(&mut self) -> Step<Value> {
        let (arguments, function) = (self.pop()?, self.pop()?);
        let Value::Tuple(arguments) = arguments else {
            return Err("REDUCE without a tuple of arguments".into());
        };
        match function {
            Value::Global(Global::RebuildTensor) => tensor(&arguments.items),
            Value::Global(Global::OrderedDict | Global::Encode) => Ok(Value::Inert),
            Value::Global(Global::Molecule) => Ok(Value::Molecule),
            Value::Global(Global::Reconstructor) => match arguments.items.first() {
                Some(Value::Global(Global::Molecule)) => Ok(Value::Molecule),
                _ => Err(
                    "copyreg would make something else than a molecule, which is refused".into(),
                ),
            },
            other => Err(format!(
                "REDUCE would call {}, which is refused",
                describe(&other)
            )),
        }
    }

    /// Values below the latest mark are out of reach.
    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Value> {
        let reachable = self.stack.len() > self.floor();
        self.stack
            .pop_if(|_| reachable)
            .ok_or_else(|| EMPTY.to_owned())
    }

    fn top(&self) -> Step<&Value> {
        self.stack
            .last()
            .filter(|_| self.stack.len() > self.floor())
            .ok_or_else(|| EMPTY.to_owned())
    }

    fn pop_to_mark(&mut self) -> Step<Vec<Value>> {
        let mark = self
            .marks
            .pop()
            .filter(|&mark| mark <= self.stack.len())
            .ok_or("there is no mark")?;
        Ok(self.stack.split_off(mark))
    }
}

const EMPTY: &str = "a value is missing on the stack";

fn impossible(lexer: &Lexer<'_, impl Read>, what: &str) -> PluginError {
    lexer.wrong(what, CONVERT)
}

impl Value {
    fn text(&self) -> Option<&Rc<str>> {
        if let Self::Text(text) = self {
            Some(text)
        } else {
            None
        }
    }

    fn tensor(&self) -> Option<&Rc<Tensor>> {
        if let Self::Tensor(tensor) = self {
            Some(tensor)
        } else {
            None
        }
    }

    /// A count or a place; negative numbers are neither.
    fn unsigned(&self) -> Option<u64> {
        if let Self::Int(n) = self {
            u64::try_from(*n).ok()
        } else {
            None
        }
    }

    /// Up to four counts, as a tensor's shape or strides.
    fn counts(&self) -> Option<Vec<u64>> {
        match self {
            Self::Tuple(tuple) if tuple.items.len() <= 4 => {
                tuple.items.iter().map(Self::unsigned).collect()
            }
            _ => None,
        }
    }
}

fn global(name: &str) -> Step<Value> {
    let known = Global::of(name).map(Value::Global);
    known.ok_or_else(|| {
        format!(
            "the name \"{}\" is refused; a pickle can do anything with it",
            name.escape_default()
        )
    })
}

fn tuple(items: Vec<Value>) -> Step<Value> {
    let depth = |item: &Value| {
        if let Value::Tuple(tuple) = item {
            tuple.depth
        } else {
            0
        }
    };
    let depth = 1 + items.iter().map(depth).max().unwrap_or(0);
    if depth > MAX_TUPLE_DEPTH || items.len() > MAX_TUPLE_ITEMS {
        return Err(format!(
            "a tuple of more than {MAX_TUPLE_DEPTH} levels or {MAX_TUPLE_ITEMS} items"
        ));
    }
    Ok(Value::Tuple(Rc::new(Tuple { items, depth })))
}

/// `("storage", type, key, device, elements)`.
fn storage(id: &Value) -> Step<Value> {
    let Value::Tuple(id) = id else {
        return Err("a storage is not named by a tuple".into());
    };
    match &id.items[..] {
        [
            Value::Text(kind),
            Value::Global(Global::Storage(dtype)),
            Value::Text(key),
            _device,
            elements,
        ] if &**kind == "storage" => {
            let elements = elements.unsigned().ok_or("a storage has no size")?;
            Ok(Value::Storage(Rc::new(Storage {
                dtype: *dtype,
                key: Rc::clone(key),
                elements,
            })))
        }
        _ => Err("a storage is not (\"storage\", type, key, device, elements)".into()),
    }
}

/// `_rebuild_tensor_v2(storage, offset, shape, strides, requires_grad, hooks)`.
fn tensor(arguments: &[Value]) -> Step<Value> {
    let [Value::Storage(storage), offset, shape, strides, ..] = arguments else {
        return Err("_rebuild_tensor_v2 without storage, offset, shape and strides".into());
    };
    let (offset, shape, strides) = (offset.unsigned(), shape.counts(), strides.counts());
    let (Some(offset), Some(shape), Some(strides)) = (offset, shape, strides) else {
        return Err(
            "a tensor's offset, shape or strides are no counts (of at most 4 dimensions)".into(),
        );
    };
    if shape.len() != strides.len() {
        return Err(format!(
            "a tensor has the shape {shape:?} and the strides {strides:?}"
        ));
    }
    let mut elements = 1_u64;
    let mut is_contiguous = true;
    for (&size, &stride) in shape.iter().zip(&strides).rev() {
        is_contiguous &= size <= 1 || stride == elements;
        elements = elements
            .checked_mul(size)
            .ok_or("a tensor's shape overflows")?;
    }
    if !is_contiguous && elements > 0 {
        return Err(format!(
            "a tensor of shape {shape:?} with strides {strides:?} is not contiguous (call .contiguous() before saving)"
        ));
    }
    if offset
        .checked_add(elements)
        .is_none_or(|end| end > storage.elements)
    {
        return Err(format!(
            "a tensor of {elements} elements from {offset} on reaches beyond its storage of {}",
            storage.elements
        ));
    }
    Ok(Value::Tensor(Rc::new(Tensor {
        storage: Rc::clone(storage),
        offset,
        shape,
        elements,
    })))
}

fn describe(value: &Value) -> String {
    match value {
        Value::Root | Value::Inert => "a list or a plain value".into(),
        Value::Molecule => "a molecule".into(),
        Value::Int(n) => format!("the number {n}"),
        Value::Text(text) => format!("the str {:?}", text.chars().take(40).collect::<String>()),
        Value::Global(global) => format!("{global:?}"),
        Value::Tuple(_) => "a tuple".into(),
        Value::Record(_) => "a dict".into(),
        Value::Storage(_) => "a storage".into(),
        Value::Tensor(_) => "a tensor".into(),
    }
}
