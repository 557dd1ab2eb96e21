//! Laws of the mathematics, over thousands of made inputs. What is compared with is slower and more obvious.

mod estimators;
mod groups;
mod made;
mod twirl;
